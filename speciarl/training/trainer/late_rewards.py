"""Late rewards: written into TransferQueue for trajectories that were stored without one (``late_verdicts``)."""

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
"""Between two checks of the workers' counters."""
VOIDED = ("rm_scores", "response_mask", "loss_mask")
"""Columns that are set to zero in a row without a reward, so that it adds nothing to loss or advantage."""


def collect(agent_loops: Sequence[Any], check: Callable[[], None], deadline_s: float) -> dict[str, Score | None]:
    """Fetch the scores of a batch's rollouts, by ``{uid}_{session}``, awaited until all their groups have ended.

    Args:
        agent_loops: handles of the workers.
        check: called now and then while waiting; what it raises ends the wait.
        deadline_s: longer than a group's own deadline, so that a worker which misses it hangs.

    Raises WorkerLost when a worker is dead or past the deadline.
    """
    asked = waiting = [worker.late_scores.remote() for worker in agent_loops]
    end = time.monotonic() + deadline_s
    while waiting:
        _, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=min(INTERVAL_S, deadline_s))
        if waiting and time.monotonic() > end:
            raise WorkerLost(f"an agent-loop worker did not settle its groups within {deadline_s:g} s")
        if waiting:
            check()
    try:
        replies: list[dict[str, Score | None]] = ray.get(asked)
    except ray.exceptions.RayActorError as error:
        raise calls.worker_lost(error) from error
    return {rollout: score for reply in replies for rollout, score in reply.items()}


def write(batch: Any, scores: Mapping[str, Score | None]) -> int:
    """Write the rewards of a batch's trajectories (veRL's KVBatchMeta) into TransferQueue; returns how many have one.

    A trajectory without a reward becomes a padding row, as veRL's own: no loss, baseline or reward metric counts it.
    Its order among the others may change.
    """
    rows = [index for index, tag in enumerate(batch.tags) if not tag.get("is_padding", False)]
    earned = [(index, _score_of(batch.keys[index], scores)) for index in rows]
    scored = {batch.keys[index]: score for index, score in earned if score is not None}
    if scored:
        _write_rewards(scored, batch.partition_id)
    unscored = [index for index, score in earned if score is None]
    if unscored:
        # veRL tells padding by this tag, of which there are two copies: this batch has one, TransferQueue the other.
        for index in unscored:
            batch.tags[index]["is_padding"] = True
        keys, tags = [batch.keys[index] for index in unscored], [batch.tags[index] for index in unscored]
        _write_padding(keys, tags, batch.partition_id)
        batch.reorder(spread([tag.get("is_padding", False) for tag in batch.tags]))
    return len(scored)


def spread(empty: Sequence[bool]) -> list[int]:
    """Order of the rows in which the empty ones are spread evenly.

    A mini-batch is a run of consecutive rows, and one of empty rows alone would have a loss of 0 / 0.
    """
    places = [[index for index, flag in enumerate(empty) if flag is kind] for kind in (False, True)]
    share = {index: (place + 0.5) / len(rows) for rows in places for place, index in enumerate(rows)}
    return sorted(share, key=share.__getitem__)


def _score_of(key: str, scores: Mapping[str, Score | None]) -> Score | None:
    """Score of a trajectory ``{uid}_{session}_{index}``: all outputs of a session share it, as in veRL."""
    rollout = key.rsplit("_", 1)[0]
    if rollout not in scores:
        raise WorkerLost(f"no agent-loop worker knows what became of rollout {rollout}")
    return scores[rollout]


def _write_rewards(scored: Mapping[str, Score], partition_id: str) -> None:
    keys = list(scored)
    stored = tq.kv_batch_get(keys=keys, partition_id=partition_id, select_fields=["extra_fields", "rm_scores"])
    fields = []
    for extra, pending, score in zip(
        stored.pop("extra_fields").tolist(), stored["rm_scores"].unbind(), scored.values(), strict=True
    ):
        rewards = torch.zeros_like(pending)
        rewards[-1] = score.reward  # on the last token, where veRL's `AgentLoopOutput.as_dict` puts it
        fields.append({"rm_scores": rewards, "extra_fields": extra | {"reward_extra_info": score.record}})
    tq.kv_batch_put(keys=keys, partition_id=partition_id, fields=list_of_dict_to_tensordict(fields))


def _write_padding(keys: list[str], tags: list[dict[str, Any]], partition_id: str) -> None:
    stored = tq.kv_batch_get(keys=keys, partition_id=partition_id, select_fields=list(VOIDED))
    # A group of its own: in its prompt's, GRPO would count its reward of 0 in the baseline.
    nobody = f"unscored{uuid.uuid4().hex}"
    columns = {name: [torch.zeros_like(row) for row in stored[name].unbind()] for name in VOIDED}
    fields = [{"uid": nobody} | {name: columns[name][place] for name in VOIDED} for place in range(len(keys))]
    tq.kv_batch_put(keys=keys, partition_id=partition_id, fields=list_of_dict_to_tensordict(fields), tags=tags)
