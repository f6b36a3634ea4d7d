"""What a run does when its judge, its rollouts or its own processes fail.

Real veRL, Ray, FSDP and vLLM, and a real judge behind a fault injector. After each fault the stored trajectories are
held against the judge's own word.
"""

import asyncio
import shutil
import time
import zlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_proxy import Fault, garbage, hang, server_error
from faulty_loop import IMAGES, drawn_first, lonely, raises
from judge_behind_faults import JudgeBehindFaults, judge_behind_faults
from long_run import LongRun, running
from stored_rewards import answer_of, assert_every_reward_is_the_judges
from stuck_servers import STUCK_AFTER, kill_stopped

from data_prep.emoji.concepts import load_concepts
from data_prep.emoji.dataset import build
from speciarl import answer
from speciarl.verdict import Pair
from speciarl.verifier_server.store.sqlite_store import FileStore

pytestmark = pytest.mark.timeout(3000)  # three attempts at a run and one at its copy, two minutes each when idle

OUR_ERROR = 2
GROUP = 4
STEPS, FAULTY_STEPS = 16, 3
"""Of the whole run, more than it comes to, and of its first attempt, at least."""
PATIENCE_S, OUTAGE_S = 8, 40
"""For how long a run that is to lose verdicts tries to get one, and after how much silence it stops."""
IMPATIENT = ("speciarl.verifier.request_timeout_s=4", f"speciarl.verifier.total_deadline_s={PATIENCE_S}")
WEIGHTS_DEADLINE_S = 30


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("emoji")
    build(load_concepts(), folder, seed=0, train_views=1, progress=lambda _: None)
    return folder


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JudgeBehindFaults]:
    with judge_behind_faults(tmp_path_factory.mktemp("judge")) as started:
        yield started


def chance(text: str) -> float:
    """In [0, 1): which pairs a fault hits, the same in every process."""
    return zlib.crc32(text.encode()) / 2**32


def no_group_of(pair: Pair) -> bool:
    """Ground truths of which no pair gets a verdict."""
    return chance(pair.ground_truth) < 0.2


def never_scored(pair: Pair) -> bool:
    """Pairs that stay without a verdict, however often they are asked for."""
    return no_group_of(pair) or chance(f"{pair.ground_truth}/{pair.prediction}") < 0.15


class Mischief:
    """Faults for good on some pairs, and passing ones on every fifth request."""

    def __init__(self) -> None:
        self.requests = 0

    def __call__(self, pair: Pair) -> Fault | None:
        self.requests += 1
        if no_group_of(pair):
            return server_error
        if never_scored(pair):
            return garbage
        passing = (hang, garbage, server_error)
        return passing[self.requests // 5 % 3] if self.requests % 5 == 0 else None


@pytest.fixture(scope="module")
def run(data: Path, judge: JudgeBehindFaults, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LongRun]:
    """The run after its first attempt: unscorable rollouts, groups under quorum, sessions that raise; a verifier that
    hangs, fails in passing, is away for longer than a pair waits but comes back, and at last goes away for good."""
    limits = [
        "speciarl.reward.quorum=2", f"speciarl.reward.outage_deadline_s={OUTAGE_S}",
        "speciarl.reward.max_unscorable_rate=0.3", f"trainer.total_training_steps={STEPS}",
    ]  # fmt: skip
    # Any rate: a batch that the outage leaves without a verdict must not end the run before the outage does.
    loose = ["speciarl.reward.max_unscorable_rate=1"]
    manager = "actor_rollout_ref.rollout.agent.agent_loop_manager_class=faulty_loop.FaultyManager"
    folder = tmp_path_factory.mktemp("run")
    with running(LongRun(folder, data, [*judge.overrides, *limits])) as attempt:
        judge.set_faults(Mischief())
        attempt.start(*IMPATIENT, *loose, manager)
        attempt.wait_for_step(1)
        judge.go_down()
        time.sleep(1.25 * PATIENCE_S)
        judge.come_up()
        attempt.wait_for_step(FAULTY_STEPS)
        judge.go_down()
        assert attempt.finish() == OUR_ERROR, attempt.log[-8000:]
        judge.come_up()
        judge.set_faults()
        yield attempt


def test_no_reward_comes_from_a_failure(run: LongRun, judge: JudgeBehindFaults) -> None:
    metrics = run.steps(1)
    assert sorted(metrics) == list(range(1, len(metrics) + 1))
    whole = {name: sum(step[f"speciarl/{name}"] for step in metrics.values()) for name in
             ("unscorable_rate", "failed_rollouts", "groups/under_quorum")}  # fmt: skip
    assert all(count > 0 for count in whole.values()), whole
    shrunk, lonely_ones = 0, []
    for step in metrics:
        stored, first = run.trajectories(step), drawn_first(step)
        sizes: dict[str, list[int]] = defaultdict(list)
        for one in stored:
            uid, session, _ = one["uid"].split("_")
            sizes[uid].append(int(session))
            text = answer_of(one)
            pair = Pair(answer.normalise(one["gts"]), answer.normalise(text or ""))
            decided_here = text is None or pair.prediction == pair.ground_truth or answer.is_abstention(text)
            assert decided_here or not never_scored(pair), one
            assert uid not in first or not raises(uid, int(session)), one
        assert len(sizes) == IMAGES  # groups that were lost were replaced
        lonely_ones += [uid for uid in first if lonely(uid)]
        assert not any(lonely(uid) for uid in first & sizes.keys())  # a single rollout is under quorum
        assert all(len(sessions) >= 2 for sessions in sizes.values())
        shrunk += sum(len(sessions) < GROUP for sessions in sizes.values())
        assert_every_reward_is_the_judges(judge, stored)
    assert shrunk > 0  # siblings of what was lost went on without it
    assert lonely_ones
    assert metrics[FAULTY_STEPS]["speciarl/verifier/total/retries"] > 0


def stored_pairs(folder: Path) -> set[Pair]:
    """Pairs whose verdict a run keeps."""

    async def read() -> set[Pair]:
        store = FileStore(folder / "verdicts.sqlite", create=False)
        await store.open()
        try:
            return {record.pair async for entries in store.scan() for _, record in entries if record is not None}
        finally:
            await store.aclose()

    return asyncio.run(read())


def scores(run: LongRun, step: int) -> list[tuple[str, str, float]]:
    """Every rollout of a step: its name, what it said and its reward."""
    return sorted((one["uid"], one["output"], one["score"]) for one in run.trajectories(step))


def test_a_run_that_is_stopped_again_and_again_goes_on_as_if_nothing_had_been(
    data: Path, run: LongRun, judge: JudgeBehindFaults, tmp_path: Path
) -> None:
    """Outage, kill -9 in a step, failure budget: each time the same command goes on at the right step, and seeded
    rollouts with kept verdicts earn the very rewards of a run that is not stopped."""
    # The verifier went away for good.
    whole = run.saved_step()
    assert whole >= FAULTY_STEPS
    assert f"speciarl: step {whole + 1} was given up, step {whole} is saved: the verifier was asked for" in run.log
    assert sorted(run.steps()) == list(range(1, whole + 1))
    straight = tmp_path / "straight"
    shutil.copytree(run.folder / f"global_step_{whole}", straight / f"global_step_{whole}")
    (straight / "latest_checkpointed_iteration.txt").write_text(str(whole))

    # It is back. Power fails in the middle of the next step but one, with verdicts in the store and others not asked
    # for yet.
    run.start("trainer.save_freq=1")
    run.wait_until(lambda: run.saved_step() > whole, "a checkpoint")
    kept = stored_pairs(run.folder)
    run.wait_until(lambda: len(stored_pairs(run.folder)) > len(kept), "a verdict of the next step")
    run.kill()
    last = run.saved_step()
    assert last > whole
    spared = stored_pairs(run.folder)

    # Half of the verdicts become rubbish: what was scored is learnt from, then the run stops.
    asked: list[Pair] = []

    def rubbish(pair: Pair) -> Fault | None:
        asked.append(pair)
        return garbage if chance(pair.prediction + pair.ground_truth) < 0.6 else None

    judge.set_faults(asked.append)
    # So much rubbish in a row may well have the judge taken for dead for a while, which is no outage yet.
    run.start(*IMPATIENT, f"speciarl.reward.outage_deadline_s={5 * OUTAGE_S}")
    run.wait_for_step(last + 1)
    judge.set_faults(rubbish)
    assert run.finish() == OUR_ERROR, run.log[-8000:]
    judge.set_faults()
    assert asked
    assert not spared & set(asked)
    assert "more than speciarl.reward.max_unscorable_rate=30%" in run.log
    spoilt = run.saved_step()
    assert spoilt > last + 1
    assert sorted(run.steps()) == list(range(last + 1, spoilt + 1))
    assert run.steps()[spoilt]["speciarl/unscorable_rate"] > 0.3
    for step in range(whole + 1, spoilt + 1):
        assert_every_reward_is_the_judges(judge, run.trajectories(step))

    # From the checkpoint before the kill, a run that is not stopped finds every verdict in the store of the other one,
    # and earns the same rewards. It ends when its rollout servers hang as they are due new weights.
    store = f"speciarl.verifier.store.path={run.folder / 'verdicts.sqlite'}"
    with running(run.elsewhere(straight, store)) as other:
        try:
            other.start(
                "trainer.save_freq=1", f"speciarl.training.weights_deadline_s={WEIGHTS_DEADLINE_S}",
                "actor_rollout_ref.model.external_lib=stuck_servers", variables={STUCK_AFTER: str(spoilt)},
            )  # fmt: skip
            assert other.finish() == OUR_ERROR, other.log[-8000:]
        finally:
            stopped = kill_stopped(straight)
        assert stopped
        assert f"speciarl: the rollout servers did not take the new weights within {WEIGHTS_DEADLINE_S} s" in other.log
        assert other.saved_step() == spoilt
        metrics = other.steps()
        assert sorted(metrics) == list(range(whole + 1, spoilt))
        assert metrics[spoilt - 1]["speciarl/verifier/total/live"] == 0
        assert metrics[spoilt - 1]["speciarl/verifier/total/store_hits"] > 0
        for step in metrics:
            assert scores(run, step) == scores(other, step), step
