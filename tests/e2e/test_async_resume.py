"""An asynchronous run that is given up in a step and killed in another goes on with what it had.

Unlike `sync`, these modes keep the prompts that are under way in their checkpoints. Real veRL, Ray, FSDP and vLLM, and
a real judge behind a fault injector.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from judge_behind_faults import JudgeBehindFaults, judge_behind_faults
from long_run import LongRun, running
from stored_rewards import assert_every_reward_is_the_judges

from speciarl.training.seeding import prompt_uid

pytestmark = pytest.mark.timeout(1800)  # three attempts at one run, a minute each on an idle machine

OUR_ERROR = 2
SEED = 42
IMAGES, ROLLOUTS, STEPS = 8, 4, 7


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JudgeBehindFaults]:
    with judge_behind_faults(tmp_path_factory.mktemp("judge")) as started:
        yield started


def test_prompts_under_way_are_learnt_from_once(laptop_data: Path, judge: JudgeBehindFaults, tmp_path: Path) -> None:
    limits = ["speciarl.reward.outage_deadline_s=10"]
    mode = ["recipe/mode=colocate_async", f"trainer.total_training_steps={STEPS}", f"data.seed={SEED}"]
    overrides = [*judge.overrides, *limits, *mode]
    learnt: Counter[str] = Counter()

    def learn(run: LongRun, first: int, last: int) -> None:
        """Take in the steps of an attempt that the checkpoints keep."""
        for step in range(first, last + 1):
            stored = run.trajectories(step)
            rollouts = Counter(one["uid"].split("_")[0] for one in stored)
            assert sorted(rollouts.values()) == [ROLLOUTS] * IMAGES
            assert_every_reward_is_the_judges(judge, stored)
            learnt.update(rollouts.keys())

    with running(LongRun(tmp_path / "run", laptop_data, overrides)) as run:
        # The verifier goes away for good: the step is given up, with two batches of prompts under way.
        run.start()
        run.wait_for_step(2)
        judge.go_down()
        assert run.finish() == OUR_ERROR, run.log[-8000:]
        given_up = run.saved_step()
        assert given_up >= 2
        assert f"step {given_up + 1} was given up, step {given_up} is saved" in run.log
        learn(run, 1, given_up)

        # It is back. Power fails after the next checkpoint, while a batch is under way.
        judge.come_up()
        run.start("trainer.save_freq=1")
        run.wait_for_step(given_up + 1)
        run.kill()
        killed = run.saved_step()
        assert killed > given_up
        learn(run, given_up + 1, killed)

        run.start()
        assert run.finish() == 0, run.log[-8000:]
        assert sorted(run.steps()) == list(range(killed + 1, STEPS + 1))
        learn(run, killed + 1, STEPS)
        staleness = [step["training/off_policy/trajectory_staleness/max"] for step in run.steps().values()]
        assert 0 < max(staleness) <= 3  # the batch ahead, and the one of the step that was given up

    assert set(learnt.values()) == {1}
    under_way = {prompt_uid(SEED, given_up + 1, ordinal) for ordinal in range(IMAGES)}
    assert under_way <= set(learnt)
