"""Rewards that are fetched after their trajectories were stored; veRL's storage and Ray are fakes."""

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import torch
from hypothesis import given
from hypothesis import strategies as st
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.utils.tensordict_utils import list_of_dict_to_tensordict

from speciarl.errors import VerifierOutage, WorkerLost
from speciarl.training.agent_loop.late_scores import PENDING, Score
from speciarl.training.trainer import late_rewards


class FakeQueue:
    """TransferQueue's key-value calls on a dict."""

    def __init__(self, rows: dict[str, dict[str, Any]]) -> None:
        self.rows = rows
        self.tags: dict[str, dict[str, Any]] = {}

    def kv_batch_get(self, keys: list[str], partition_id: str, select_fields: list[str]) -> TensorDict:
        return list_of_dict_to_tensordict([{name: self.rows[key][name] for name in select_fields} for key in keys])

    def kv_batch_put(
        self, keys: list[str], partition_id: str, fields: TensorDict, tags: list[dict[str, Any]] | None = None
    ) -> None:
        for name in list(fields.keys()):
            column = fields[name]
            values = column.unbind() if isinstance(column, torch.Tensor) else list(column)
            for key, value in zip(keys, values, strict=True):
                self.rows[key][name] = value
        self.tags.update(zip(keys, tags or [], strict=False))


def row(tokens: int) -> dict[str, Any]:
    rewards = torch.zeros(tokens)
    rewards[-1] = PENDING
    mask = torch.ones(tokens, dtype=torch.int64)
    extra = {"reward_extra_info": {}, "kept": tokens}
    return {"uid": "g", "rm_scores": rewards, "response_mask": mask, "loss_mask": mask.clone(), "extra_fields": extra}


def score(reward: float) -> Score:
    return Score(reward, {"category": "specific", "group_reward": reward}, 0.1)


def settled(
    monkeypatch: pytest.MonkeyPatch, scores: dict[str, Score | None], rewarded: int = 3, padding: int = 0
) -> tuple[FakeQueue, KVBatchMeta]:
    """A group `g` of three rollouts, of 2, 3 and 4 tokens, after `write`."""
    queue = FakeQueue({f"g_{session}_0": row(session + 2) for session in range(3)})
    batch = KVBatchMeta(
        keys=[*queue.rows, *(f"pad_{place}_0" for place in range(padding))],
        tags=[{"seq_len": 9} for _ in queue.rows] + [{"is_padding": True}] * padding,
        partition_id="train",
    )
    monkeypatch.setattr(late_rewards, "tq", queue)
    assert late_rewards.write(batch, scores) == rewarded
    return queue, batch


def test_each_trajectory_gets_its_reward_on_its_last_token(monkeypatch: pytest.MonkeyPatch) -> None:
    scores: dict[str, Score | None] = {"g_0": score(1.0), "g_1": score(-1.0), "g_2": score(0.25), "other_0": None}
    queue, batch = settled(monkeypatch, scores, padding=2)
    assert [stored["rm_scores"].tolist() for stored in queue.rows.values()] == [[0, 1], [0, 0, -1], [0, 0, 0, 0.25]]
    assert [stored["extra_fields"] for stored in queue.rows.values()] == [
        {"reward_extra_info": {"category": "specific", "group_reward": reward}, "kept": tokens}
        for reward, tokens in ((1.0, 2), (-1.0, 3), (0.25, 4))
    ]
    assert {stored["uid"] for stored in queue.rows.values()} == {"g"}
    assert [tag.get("is_padding", False) for tag in batch.tags] == [False] * 3 + [True] * 2


def test_a_trajectory_without_a_score_counts_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    queue, batch = settled(monkeypatch, {"g_0": score(1.0), "g_1": None, "g_2": score(0.0)}, rewarded=2)
    lost = queue.rows["g_1_0"]
    for name in ("rm_scores", "response_mask", "loss_mask"):
        assert lost[name].tolist() == [0, 0, 0]
    assert lost["uid"] != "g"  # or its 0 would be part of the group's mean
    tags = {"g_0_0": {"seq_len": 9}, "g_1_0": {"seq_len": 9, "is_padding": True}, "g_2_0": {"seq_len": 9}}
    assert dict(zip(batch.keys, batch.tags, strict=True)) == tags
    assert queue.tags == {"g_1_0": {"seq_len": 9, "is_padding": True}}
    for key in ("g_0_0", "g_2_0"):
        assert queue.rows[key]["response_mask"].all()
        assert not any(math.isnan(reward) for reward in queue.rows[key]["rm_scores"].tolist())


def test_of_a_batch_without_any_score_nothing_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    queue, batch = settled(monkeypatch, dict.fromkeys(("g_0", "g_1", "g_2")), rewarded=0, padding=1)
    assert all(tag["is_padding"] for tag in batch.tags)
    assert not any(stored["response_mask"].any() for stored in queue.rows.values())


def test_a_trajectory_that_no_worker_knows_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WorkerLost, match="what became of rollout g_1"):
        settled(monkeypatch, {"g_0": score(1.0), "g_2": None})


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 8))
def test_empty_rows_are_spread_over_all_mini_batches(empty: list[bool], mini_batches: int) -> None:
    order = late_rewards.spread(empty)
    assert sorted(order) == list(range(len(empty)))
    size = len(empty) // mini_batches
    for start in range(0, size * mini_batches, size or 1):
        found = sum(empty[index] for index in order[start : start + size])
        assert abs(found - sum(empty) / len(empty) * size) <= 2


class FakeRay:
    """Workers that reply after so many waits; `get` does what it is told."""

    exceptions = ray.exceptions

    def __init__(self, waits: int, get: Callable[[], Any]) -> None:
        self.waits = waits
        self.replies = get

    def wait(self, refs: list[Any], num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        self.waits -= 1
        return (refs, []) if self.waits < 0 else ([], refs)

    def get(self, refs: list[Any]) -> Any:
        return self.replies()


def collect(monkeypatch: pytest.MonkeyPatch, fake: FakeRay, look: Callable[[], None], deadline_s: float = 60.0) -> Any:
    monkeypatch.setattr(late_rewards, "ray", fake)
    worker = SimpleNamespace(late_scores=SimpleNamespace(remote=object))
    return late_rewards.collect([worker, worker], look, deadline_s)


def test_all_workers_scores_are_collected_with_a_look_at_each_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    fake = FakeRay(2, lambda: [{"a_0": score(1.0)}, {"b_0": None}])
    assert collect(monkeypatch, fake, lambda: looks.append(1)) == {"a_0": score(1.0), "b_0": None}
    assert looks == [1, 1]


def test_what_a_look_raises_ends_the_wait_for_verdicts(monkeypatch: pytest.MonkeyPatch) -> None:
    def look() -> None:
        raise VerifierOutage("no verdict for long")

    with pytest.raises(VerifierOutage):
        collect(monkeypatch, FakeRay(10**6, list), look)


def test_workers_that_never_settle_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WorkerLost, match=r"did not settle its groups within 0\.01 s"):
        collect(monkeypatch, FakeRay(10**9, list), lambda: None, deadline_s=0.01)


def test_a_worker_that_died_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def dead() -> Any:
        raise ray.exceptions.RayActorError

    with pytest.raises(WorkerLost, match="died, and its rollouts with it"):
        collect(monkeypatch, FakeRay(0, dead), lambda: None)
