"""What a run does when its judge, its rollouts or its own processes fail.

Real veRL, Ray, FSDP and vLLM, and a real judge behind a fault injector. After each fault the stored trajectories are
held against the judge's own word.
"""

import asyncio
import time
import zlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_proxy import Fault, garbage, hang, server_error
from faulty_loop import lonely, raises
from judge_behind_faults import JudgeBehindFaults, judge_behind_faults
from long_run import LongRun, running
from stored_rewards import answer_of, assert_every_reward_is_the_judges

from data_prep.emoji_concepts import load_concepts
from data_prep.emoji_dataset import build
from speciarl import answer
from speciarl.training.seeding import prompt_uid
from speciarl.verdict import Pair
from speciarl.verifier_server.store.file_store import FileStore

pytestmark = pytest.mark.timeout(2400)  # seven attempts at one run, a minute each on an idle machine

OUR_ERROR = 2
GROUP = 4
SEED = 42
"""The recipe's."""
PATIENCE_S = 8
"""For how long a run that is to lose verdicts tries to get one."""


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


def test_no_reward_comes_from_a_failure(data: Path, judge: JudgeBehindFaults, tmp_path: Path) -> None:
    """Unscorable rollouts, groups under quorum, sessions that raise; a verifier that hangs, fails in passing, and is
    away for longer than a pair waits but comes back."""
    judge.set_faults(Mischief())
    impatient = ["speciarl.verifier.request_timeout_s=4", f"speciarl.verifier.total_deadline_s={PATIENCE_S}"]
    manager = "actor_rollout_ref.rollout.agent.agent_loop_manager_class=faulty_loop.FaultyManager"
    limits = ["speciarl.reward.max_unscorable_rate=0.9", "speciarl.reward.quorum=2", "trainer.total_training_steps=3"]
    with running(LongRun(tmp_path / "run", data, [*judge.overrides, *impatient, *limits, manager])) as run:
        run.start()
        run.wait_for_step(1)
        judge.go_down()
        time.sleep(1.5 * PATIENCE_S)
        judge.come_up()
        assert run.finish() == 0, run.log[-8000:]
    metrics = run.steps()
    assert sorted(metrics) == [1, 2, 3]
    whole = {name: sum(step[f"speciarl/{name}"] for step in metrics.values()) for name in
             ("unscorable_rate", "failed_rollouts", "groups/under_quorum")}  # fmt: skip
    assert all(count > 0 for count in whole.values()), whole
    shrunk, lonely_ones = 0, []
    for step in metrics:
        stored = run.trajectories(step)
        sizes: dict[str, list[int]] = defaultdict(list)
        for one in stored:
            uid, session, _ = one["uid"].split("_")
            sizes[uid].append(int(session))
            text = answer_of(one)
            pair = Pair(answer.normalise(one["gts"]), answer.normalise(text or ""))
            decided_here = text is None or pair.prediction == pair.ground_truth or answer.is_abstention(text)
            assert decided_here or not never_scored(pair), one
            assert not raises(uid, int(session)), one
        assert len(sizes) == 8  # groups that were lost were replaced
        lonely_ones += [uid for uid in (prompt_uid(SEED, step, number) for number in range(8)) if lonely(uid)]
        assert not any(lonely(uid) for uid in sizes)  # a single rollout is under quorum
        assert all(len(sessions) >= 2 for sessions in sizes.values())
        shrunk += sum(len(sessions) < GROUP for sessions in sizes.values())
        assert_every_reward_is_the_judges(judge, stored)
    assert shrunk > 0  # siblings of what was lost went on without it
    assert lonely_ones
    verifier = metrics[3]
    assert verifier["speciarl/verifier/total/retries"] > 0


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
    data: Path, judge: JudgeBehindFaults, tmp_path: Path
) -> None:
    """Outage, a dead worker, kill -9 in a step and in a checkpoint, failure budget: each time the same command goes on
    at the right step, and seeded rollouts with kept verdicts earn the very rewards of a run without any fault."""
    limits = ["speciarl.reward.outage_deadline_s=10", "speciarl.reward.max_unscorable_rate=0.3"]
    overrides = [*judge.overrides, *limits, "trainer.total_training_steps=8"]
    often = "trainer.save_freq=1"
    judge.set_faults()
    with running(LongRun(tmp_path / "crooked", data, overrides)) as run:
        # The verifier goes away for good.
        run.start()
        run.wait_for_step(2)
        judge.go_down()
        assert run.finish() == OUR_ERROR, run.log[-8000:]
        last = run.saved_step()
        assert last >= 2
        assert f"speciarl: step {last + 1} was given up, step {last} is saved: the verifier was asked for" in run.log
        assert sorted(run.steps()) == list(range(1, last + 1))

        # It is back, but now a worker dies, and with it the rollouts that veRL waits for.
        judge.come_up()
        run.start()
        run.wait_until(lambda: "Training Progress" in run.log, "the first step")
        for worker in run.processes("GroupAgentLoopWorker"):
            worker.kill()
        assert run.finish() == OUR_ERROR, run.log[-8000:]
        assert "an agent-loop worker died" in run.log
        assert run.saved_step() >= last

        # Power fails in the middle of a step, with verdicts in the store and others not asked for yet.
        last, kept = run.saved_step(), stored_pairs(run.folder)
        run.start()
        run.wait_until(lambda: len(stored_pairs(run.folder)) > len(kept), "a verdict of the next step")
        run.kill()
        assert run.saved_step() == last
        spared = stored_pairs(run.folder)

        # Then in the middle of a checkpoint.
        asked: list[Pair] = []
        judge.set_faults(asked.append)
        run.start(often)
        run.wait_until(lambda: (run.folder / f"global_step_{last + 1}").is_dir(), "a checkpoint")
        run.kill()
        assert asked
        assert not spared & set(asked)
        judge.set_faults()

        # Half of the verdicts are rubbish: what was scored is learnt from, then the run stops.
        run.start(often)
        run.wait_for_step(last + 2)
        judge.set_faults(lambda pair: garbage if chance(pair.prediction + pair.ground_truth) < 0.6 else None)
        assert run.finish() == OUR_ERROR, run.log[-8000:]
        assert "more than speciarl.reward.max_unscorable_rate=30%" in run.log
        spoilt = run.saved_step()
        assert sorted(run.steps())[-1] == spoilt
        assert run.steps()[spoilt]["speciarl/unscorable_rate"] > 0.3
        judge.set_faults()

        run.start(often)
        assert run.finish() == 0, run.log[-8000:]
        assert sorted(run.steps()) == list(range(spoilt + 1, 9))
        assert run.saved_step() == 8
        for step in range(1, 9):
            assert_every_reward_is_the_judges(judge, run.trajectories(step))

    # The same run without any fault finds every verdict in the store of the other one, and earns the same rewards.
    store = f"speciarl.verifier.store.path={run.folder / 'verdicts.sqlite'}"
    with running(LongRun(tmp_path / "straight", data, [*overrides, store])) as straight:
        straight.start()
        assert straight.finish() == 0, straight.log[-8000:]
    metrics = straight.steps()
    assert sorted(metrics) == list(range(1, 9))
    assert metrics[spoilt - 1]["speciarl/verifier/total/live"] == 0
    assert metrics[spoilt - 1]["speciarl/verifier/total/store_hits"] > 0
    for step in range(1, spoilt):
        assert scores(run, step) == scores(straight, step), step
