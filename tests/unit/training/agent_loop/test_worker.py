"""The group-aware worker on veRL's own prompt loop; only generation, judge and storage are fakes."""

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf
from verl.trainer.ppo.v1 import agent_loop_tq

from speciarl.category import Category
from speciarl.config import parse
from speciarl.reward import load
from speciarl.reward.noise import Noise, RolloutIdentity
from speciarl.training.agent_loop.late_scores import Score
from speciarl.training.agent_loop.manager import GroupAgentLoopManager
from speciarl.training.agent_loop.worker import GroupAgentLoopWorker
from speciarl.training.observability.rollout_samples import SampleBook, SampledGroup
from speciarl.training.observability.rollout_stats import RolloutStats
from speciarl.training.observability.stall_timer import SilenceClock, WaitClock
from speciarl.verdict import Judgement, Pair, Reason, Source, Unscorable, Verdict

PATIENCE_S = 20.0
RESPONSE_LIMIT = 40
"""Tokens; the fake tokenizer counts characters."""
STOCK = agent_loop_tq.AgentLoopWorkerTQ.__ray_actor_class__


@pytest.fixture(autouse=True)
def runs_in_virtual_time(monkeypatch: pytest.MonkeyPatch, virtual_time: Any) -> None:
    """A busy machine brings no deadline nearer."""
    _, options = virtual_time
    monkeypatch.setattr(asyncio.events, "new_event_loop", options["loop_factory"])  # where `asyncio.run` looks


class FakeTokenizer:
    def decode(self, ids: str, skip_special_tokens: bool) -> str:
        return ids


class FakeVerifier:
    """Judges by the words of the answer; "hang" takes longer than any deadline here."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def verify(self, pair: Pair) -> Judgement:
        self.asked.append(pair.prediction)
        if pair.prediction == "hang":
            await asyncio.sleep(3600)
        if pair.prediction == "lost":
            return Unscorable(Reason.TIMEOUT, "no reply")
        if pair.prediction == "full":
            return Verdict(Category.SPECIFIC, 1.0, Source.LIVE)
        return Verdict(Category[pair.prediction.upper()], 1.0, Source.LIVE)


class FakeQueue:
    def __init__(self) -> None:
        self.status: dict[str, str] = {}

    async def async_kv_put(self, key: str, partition_id: str, tag: dict[str, Any]) -> None:
        self.status[key] = tag["status"]


def fake_generation(script: list[str], stored: dict[int, Any]) -> Callable[..., Any]:
    """Rollout i says script[i]; "crash" raises, "stall" never ends, "full" is judged and cannot be stored. What would
    be stored lands in `stored`."""

    async def run(self: Any, sampling_params: Any, trajectory: Any, *, session_id: int, **kwargs: Any) -> None:
        words = script[session_id]
        await asyncio.sleep(0.001 * (len(script) - session_id))
        if words == "crash":
            raise RuntimeError("generation failed")
        if words == "stall":
            await asyncio.sleep(3600)
        text = words if words == "rambling" else f"<answer>{words}</answer>"
        output = SimpleNamespace(response_ids=text, extra_fields={}, metrics=SimpleNamespace(compute_score=0.0))
        await self._compute_score([output], kwargs={"session_id": session_id, **kwargs})
        if words == "full":
            raise RuntimeError("no room for the trajectory")
        stored[session_id] = output

    return run


def run_prompt(
    monkeypatch: pytest.MonkeyPatch,
    script: list[str],
    *,
    validate: bool = False,
    quorum: int = 2,
    deadline_s: float = 60.0,
    step: int = 1,
    samples: list[SampledGroup] | None = None,
    reward: Mapping[str, Any] | None = None,
    late: dict[str, Score | None] | None = None,
) -> tuple[dict[int, Any], str, RolloutStats]:
    """Run one prompt; returns what was stored, the group's status and the counters of training or validation. Given
    `late`, verdicts may come late, and `late` is filled with what the trainer would then fetch."""
    stored: dict[int, Any] = {}
    queue = FakeQueue()
    monkeypatch.setattr(agent_loop_tq, "tq", queue)
    monkeypatch.setattr(STOCK, "_run_agent_loop", fake_generation(script, stored))
    worker = object.__new__(GroupAgentLoopWorker)
    worker.config = OmegaConf.create(
        {
            "actor_rollout_ref": {
                "rollout": {"n": len(script), "val_kwargs": {"n": len(script)}, "response_length": RESPONSE_LIMIT}
            }
        }
    )
    worker.tokenizer = FakeTokenizer()
    worker._settings = parse(
        {
            "verifier": {"kind": "taxonomy", "taxonomy": "unused.json"},
            "reward": {"quorum": quorum, "group_deadline_s": deadline_s, **(reward or {})},
            "training": {"late_verdicts": late is not None},
        }
    )
    chosen = worker._settings.reward
    worker._reward, worker._verifier = load(chosen.name, chosen.params), FakeVerifier()
    worker._groups, worker._late = {}, {}
    worker._stats = {part: RolloutStats() for part in (False, True)}
    worker._clocks = {part: WaitClock() for part in (False, True)}
    worker._silence, worker._samples = SilenceClock(), SampleBook(every=2, per_step=1)
    worker._group_rollout = lambda: None  # fake generation needs none
    row = {"reward_model": {"ground_truth": "lion"}, "extra_info": {"sample_id": "s"}}
    prompt = {"uid": "u", "agent_name": "fake", **row}

    async def run() -> None:
        running = asyncio.create_task(worker._run_prompt(prompt, {}, trajectory={"validate": validate, "step": step}))
        if late is not None:
            await asyncio.sleep(0)  # the trainer asks when there are trajectories, so when prompts have begun
            late.update(await worker.late_scores())
        await running

    asyncio.run(asyncio.wait_for(run(), PATIENCE_S))
    assert (worker._groups, worker._late) == ({}, {})
    assert worker._clocks[validate]._phases == {}
    if samples is not None:
        samples += worker._samples.drain()
    assert worker._stats[not validate] == RolloutStats()
    return stored, queue.status["u"], worker._stats[validate]


def earned(stored: dict[int, Any]) -> dict[int, float]:
    return {session: output.reward_score for session, output in stored.items()}


def test_rewards_are_final_before_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    stored, status, stats = run_prompt(monkeypatch, ["generic", "less_specific", "wrong", "rambling"])
    assert earned(stored) == {0: 0.0, 1: 1.0, 2: 0.0, 3: -1.0}
    assert status == "finished"
    assert {output.extra_fields["reward_extra_info"]["reference"] for output in stored.values()} == {"less_specific"}
    assert (stats.rollouts, stats.groups, stats.failed) == (4, 1, 0)


def test_every_stored_sample_has_the_same_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    stored, _, _ = run_prompt(monkeypatch, ["generic", "rambling", "wrong", "lost", "crash"])
    assert len({tuple(output.extra_fields["reward_extra_info"]) for output in stored.values()}) == 1


def test_a_crashed_sibling_strands_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    stored, status, stats = run_prompt(monkeypatch, ["crash", "generic", "specific"])
    assert earned(stored) == {1: 0.0, 2: 1.0}
    assert status == "failure"
    assert (stats.failed, stats.rollouts) == (1, 2)


def test_an_unscorable_rollout_leaves_no_trajectory_and_no_trace_in_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    stored, status, stats = run_prompt(monkeypatch, ["lost", "generic", "wrong"])
    assert earned(stored) == {1: 1.0, 2: 0.0}
    assert status == "failure"
    assert stats.unscorable == Counter(timeout=1)


@pytest.mark.parametrize("bad", ["stall", "hang"])
def test_a_hanging_rollout_or_judge_is_cut_off_at_the_deadline(monkeypatch: pytest.MonkeyPatch, bad: str) -> None:
    stored, status, stats = run_prompt(monkeypatch, [bad, "generic", "specific"], deadline_s=0.3)
    assert earned(stored) == {1: 0.0, 2: 1.0}
    assert status == "failure"
    assert stats.failed == 1


def test_a_group_under_quorum_stores_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stored, status, stats = run_prompt(monkeypatch, ["lost", "lost", "specific"], quorum=2)
    assert stored == {}
    assert status == "failure"
    assert stats.groups_under_quorum == 1


def test_validation_needs_no_quorum_and_counts_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    stored, status, stats = run_prompt(monkeypatch, ["generic"], validate=True)
    assert earned(stored) == {0: 1.0}
    assert (status, stats.groups) == ("finished", 0)


def test_a_sampled_step_shows_every_judged_rollout_with_its_reward(monkeypatch: pytest.MonkeyPatch) -> None:
    samples: list[SampledGroup] = []
    run_prompt(monkeypatch, ["generic", "rambling", "lost", "crash", "specific"], step=2, samples=samples)
    (group,) = samples
    assert (group.step, group.ground_truth, group.sample_id, group.reference) == (2, "lion", "s", "specific")
    assert [(one.session, one.answer, one.category, one.reward) for one in group.rollouts] == [
        (0, "generic", "generic", 0.0),
        (1, None, "unparsable", -1.0),
        (2, "lost", "unscorable", None),
        (4, "specific", "specific", 1.0),
    ]


def test_a_sampled_step_tells_of_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    samples: list[SampledGroup] = []
    run_prompt(monkeypatch, ["wrong", "wrong"], step=2, samples=samples, reward={"noise": {"probability": 1.0}})
    (group,) = samples
    assert [(one.category, one.reward, one.provenance) for one in group.rollouts] == [
        ("wrong", 1.0, "live; moved to abstain by noise")
    ] * 2


@pytest.mark.parametrize(("step", "validate"), [(1, False), (2, True), (0, False)])
def test_other_steps_and_validation_are_not_sampled(monkeypatch: pytest.MonkeyPatch, step: int, validate: bool) -> None:
    samples: list[SampledGroup] = []
    run_prompt(monkeypatch, ["generic", "specific"], validate=validate, step=step, samples=samples)
    assert samples == []


def late_rewards(late: dict[str, Score | None]) -> dict[int, float]:
    return {int(name.removeprefix("u_")): score.reward for name, score in late.items() if score is not None}


@pytest.mark.parametrize(
    "script",
    [
        ["generic", "less_specific", "wrong", "rambling"],
        ["lost", "generic", "wrong"],
        ["crash", "generic", "specific"],
        ["lost", "lost", "specific"],
        ["crash", "crash", "specific"],
        ["full", "generic", "wrong"],
    ],
)
def test_late_verdicts_change_neither_rewards_nor_counts(monkeypatch: pytest.MonkeyPatch, script: list[str]) -> None:
    in_time, _, counted = run_prompt(monkeypatch, script)
    late: dict[str, Score | None] = {}
    stored, _, late_counted = run_prompt(monkeypatch, script, late=late)
    learnt_from = {session: reward for session, reward in late_rewards(late).items() if session in stored}
    assert learnt_from == earned(in_time)
    records_of = {name: score.record for name, score in late.items() if score is not None}
    assert {name: records_of[f"u_{name}"] for name in learnt_from} == records(in_time)
    for stats in (counted, late_counted):
        stats.judge_seconds = 0.0
    assert late_counted == counted


def test_a_trajectory_waits_for_no_late_verdict_and_has_no_reward_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    late: dict[str, Score | None] = {}
    stored, status, stats = run_prompt(monkeypatch, ["hang", "generic", "specific"], deadline_s=0.3, late=late)
    assert sorted(stored) == [0, 1, 2]
    assert all(math.isnan(reward) for reward in earned(stored).values())
    assert set(map(str, records(stored).values())) == {"{}"}
    assert (status, stats.failed) == ("finished", 1)
    assert late["u_0"] is None
    assert late_rewards(late) == {1: 0.0, 2: 1.0}


def test_a_late_rollout_that_stalls_is_cut_off_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    late: dict[str, Score | None] = {}
    stored, status, stats = run_prompt(monkeypatch, ["stall", "generic", "specific"], deadline_s=0.3, late=late)
    assert (sorted(stored), status, stats.failed) == ([1, 2], "failure", 1)
    assert late_rewards(late) == {1: 0.0, 2: 1.0}
    assert "u_0" not in late


def test_a_late_group_is_sampled_with_its_rewards(monkeypatch: pytest.MonkeyPatch) -> None:
    samples: list[SampledGroup] = []
    run_prompt(monkeypatch, ["generic", "lost", "specific"], step=2, samples=samples, late={})
    (group,) = samples
    assert [(one.category, one.reward) for one in group.rollouts] == [
        ("generic", 0.0),
        ("unscorable", None),
        ("specific", 1.0),
    ]


def test_validation_is_never_late(monkeypatch: pytest.MonkeyPatch) -> None:
    late: dict[str, Score | None] = {}
    stored, _, _ = run_prompt(monkeypatch, ["generic"], validate=True, late=late)
    assert (earned(stored), late) == ({0: 1.0}, {})


def records(stored: dict[int, Any]) -> dict[int, dict[str, Any]]:
    return {session: output.extra_fields["reward_extra_info"] for session, output in stored.items()}


def test_noise_moves_what_the_reward_sees_and_keeps_the_true_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    script, noise = ["generic", "specific", "wrong", "rambling"], {"probability": 1.0, "seed": 3}
    stored, _, _ = run_prompt(monkeypatch, script, reward={"noise": noise}, step=5)
    true = {session: record["category"] for session, record in records(stored).items()}
    assert true == {0: "generic", 1: "specific", 2: "wrong", 3: "unparsable"}
    seen = {session: record["seen_category"] for session, record in records(stored).items()}
    for session in range(3):
        verdict = Verdict(Category[true[session].upper()], 1.0, Source.LIVE)
        moved = Noise.model_validate(noise).apply(verdict, RolloutIdentity("unknown/s", 5, session))
        assert isinstance(moved, Verdict)
        assert seen[session] == moved.category.name.lower()
        assert seen[session] != true[session]
    assert seen[3] == "unparsable"
    best = max(Category[name.upper()] for session, name in seen.items() if session != 3)
    assert earned(stored) == {
        session: -1.0 if session == 3 else float(Category[name.upper()] >= best) for session, name in seen.items()
    }


def test_validation_sees_true_verdicts_and_pays_no_penalty(monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {"noise": {"probability": 1.0}, "overlong": {"buffer_share": 1.0}}
    stored, _, _ = run_prompt(monkeypatch, ["generic"], validate=True, reward=changes)
    assert records(stored)[0]["seen_category"] == "generic"
    assert earned(stored) == {0: 1.0}


def test_the_overlong_penalty_comes_on_top_and_is_kept_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    script = ["generic", "less_specific", "wrong"]  # with their tags 24, 30 and 22 characters of 40
    stored, _, _ = run_prompt(monkeypatch, script, reward={"overlong": {"buffer_share": 0.5, "penalty": 2.0}})
    assert {session: record["group_reward"] for session, record in records(stored).items()} == {0: 0, 1: 1, 2: 0}
    penalties = {session: record["overlong_penalty"] for session, record in records(stored).items()}
    assert penalties == {0: pytest.approx(-0.4), 1: pytest.approx(-1.0), 2: pytest.approx(-0.2)}
    assert earned(stored) == {session: pytest.approx((session == 1) + term) for session, term in penalties.items()}


def test_the_rewards_parameters_reach_the_group(monkeypatch: pytest.MonkeyPatch) -> None:
    script = ["specific", "generic", "less_specific", "wrong"]
    stored, _, _ = run_prompt(monkeypatch, script, reward={"params": {"support": 2}})
    assert earned(stored) == {0: 1.0, 1: 0.0, 2: 1.0, 3: 0.0}


def test_an_error_in_a_users_reward_counts_as_failures_which_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    stored, status, stats = run_prompt(monkeypatch, ["specific", "generic", "lost"], reward={"name": "operator:neg"})
    assert (stored, status, stats.failed) == ({}, "failure", 3)
    assert stats.last_failure.startswith("TypeError: bad operand type")


def test_refills_rotate_over_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, list[str]]] = []
    monkeypatch.setattr(
        agent_loop_tq.AgentLoopManagerTQ,
        "generate_sequences",
        lambda self, prompts: seen.append((len(prompts), list(self.agent_loop_workers))),
    )
    manager = object.__new__(GroupAgentLoopManager)
    manager.agent_loop_workers = ["a", "b", "c"]
    for batch in (["p"], ["p", "q"], ["p"]):
        manager.generate_sequences(batch)
    assert [workers[0] for _, workers in seen] == ["a", "b", "a"]
