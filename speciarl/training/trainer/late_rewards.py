"""Late rewards: fetched for trajectories that were stored before their verdicts were in (``late_verdicts``)."""

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray
import torch
import transfer_queue as tq
from verl.utils.tensordict_utils import list_of_dict_to_tensordict

from speciarl.errors import WorkerLost
from speciarl.training.agent_loop import calls
from speciarl.training.agent_loop.late_scores import Score

INTERVAL_S = 5.0
"""Between two looks at what the workers have counted."""
VOID = ("rm_scores", "response_mask", "loss_mask")
"""Zero in a row that counts for nothing."""


def collect(agent_loops: Sequence[Any], look: Callable[[], None], deadline_s: float) -> dict[str, Score | None]:
    """Wait for the verdicts that are out; returns what each rollout of the batch earned, by ``{uid}_{session}``.

    Args:
        agent_loops: handles of the workers.
        look: called now and then while waiting; what it raises ends the wait.
        deadline_s: seconds after which workers must have settled every group by themselves.

    Raises WorkerLost when a worker is dead or past the deadline.
    """
    asked = waiting = [worker.late_scores.remote() for worker in agent_loops]
    end = time.monotonic() + deadline_s
    while waiting:
        _, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=min(INTERVAL_S, deadline_s))
        if waiting and time.monotonic() > end:
            raise WorkerLost(f"an agent-loop worker did not settle its groups within {deadline_s:g} s")
        if waiting:
            look()
    try:
        replies: list[dict[str, Score | None]] = ray.get(asked)
    except ray.exceptions.RayActorError as error:
        raise calls.lost(error) from error
    return {rollout: score for reply in replies for rollout, score in reply.items()}


def write(batch: Any, scores: Mapping[str, Score | None]) -> int:
    """Give every trajectory of a batch (veRL's KVBatchMeta) its reward, in veRL's storage; returns how many have one.

    One without becomes what veRL fills batches up with: a row that no loss, baseline or reward metric counts. The order
    of the rows may change.
    """
    rows = [index for index, tag in enumerate(batch.tags) if not tag.get("is_padding", False)]
    earned = [(index, _of(batch.keys[index], scores)) for index in rows]
    scored = {batch.keys[index]: score for index, score in earned if score is not None}
    if scored:
        _reward(scored, batch.partition_id)
    unscored = [index for index, score in earned if score is None]
    if unscored:
        for index in unscored:
            batch.tags[index]["is_padding"] = True
        _void([batch.keys[index] for index in unscored], [batch.tags[index] for index in unscored], batch.partition_id)
        batch.reorder(spread([tag.get("is_padding", False) for tag in batch.tags]))
    return len(scored)


def spread(empty: Sequence[bool]) -> list[int]:
    """An order of the rows in which empty ones are as evenly far apart as can be: a mini-batch, which is a run of rows,
    with nothing else in it would have a loss of 0 / 0."""
    places = [[index for index, flag in enumerate(empty) if flag is kind] for kind in (False, True)]
    share = {index: (place + 0.5) / len(rows) for rows in places for place, index in enumerate(rows)}
    return sorted(share, key=share.__getitem__)


def _of(key: str, scores: Mapping[str, Score | None]) -> Score | None:
    """Of a trajectory ``{uid}_{session}_{index}``: all outputs of a session share its score, as in veRL."""
    rollout = key.rsplit("_", 1)[0]
    if rollout not in scores:
        raise WorkerLost(f"no agent-loop worker knows what became of rollout {rollout}")
    return scores[rollout]


def _reward(scored: Mapping[str, Score], partition_id: str) -> None:
    keys = list(scored)
    stored = tq.kv_batch_get(keys=keys, partition_id=partition_id, select_fields=["extra_fields", "rm_scores"])
    fields = []
    for extra, pending, score in zip(
        stored.pop("extra_fields").tolist(), stored["rm_scores"].unbind(), scored.values(), strict=True
    ):
        rewards = torch.zeros_like(pending)
        rewards[-1] = score.reward
        fields.append({"rm_scores": rewards, "extra_fields": extra | {"reward_extra_info": score.record}})
    tq.kv_batch_put(keys=keys, partition_id=partition_id, fields=list_of_dict_to_tensordict(fields))


def _void(keys: list[str], tags: list[dict[str, Any]], partition_id: str) -> None:
    stored = tq.kv_batch_get(keys=keys, partition_id=partition_id, select_fields=list(VOID))
    nobody = f"unscored{uuid.uuid4().hex}"  # as a member of its own group it would move the baseline
    columns = {name: [torch.zeros_like(row) for row in stored[name].unbind()] for name in VOID}
    fields = [{"uid": nobody} | {name: columns[name][place] for name in VOID} for place in range(len(keys))]
    tq.kv_batch_put(keys=keys, partition_id=partition_id, fields=list_of_dict_to_tensordict(fields), tags=tags)
