"""``recipe/mode=colocate_async`` at laptop scale: what it learns from, measures and logs. A run that is given up in a
step and killed in a checkpoint goes on with what it had, and the death of its verifier service costs nothing.

Unlike `sync`, this mode keeps the prompts that are under way in its checkpoints. Real veRL, Ray, FSDP and vLLM, and a
real judge behind a fault injector, which is why the reward is the one on the judge's probabilities.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from documented_metrics import undocumented
from judge_behind_faults import JudgeBehindFaults, judge_behind_faults
from long_run import LongRun, running
from stored_rewards import assert_every_reward_is_the_judges
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb_offline import wandb_history

from speciarl.training.agent_loop.seeding import prompt_uid
from speciarl.training.trainer.checkpoint import TRACKER

pytestmark = pytest.mark.timeout(2400)  # three attempts at one run, two minutes each on an idle machine

OUR_ERROR = 2
SEED = 42
IMAGES, ROLLOUTS, MANY_STEPS = 8, 4, 16
VALIDATED, TRIES, VALIDATED_STEP = 16, 3, 3
PROBABILITY_ERROR = 1e-3
OURS = ("speciarl/", "val-core/")
# veRL logs its own averages of the reward under the same prefix.
VERLS = ("/reward/mean@", "/reward/best@", "/reward/maj@")
LOGGED = (
    "trainer.logger=[console,file,tensorboard,wandb]", "speciarl.training.samples_every=2",
    f"trainer.test_freq={VALIDATED_STEP}", f"data.val_max_samples={VALIDATED}",
    f"actor_rollout_ref.rollout.val_kwargs.n={TRIES}", "actor_rollout_ref.rollout.val_kwargs.do_sample=true",
    "actor_rollout_ref.rollout.val_kwargs.temperature=1.0",
)  # fmt: skip
"""Of the first attempt."""


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JudgeBehindFaults]:
    with judge_behind_faults(tmp_path_factory.mktemp("judge")) as started:
        yield started


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, laptop_data: Path, judge: JudgeBehindFaults) -> Iterator[LongRun]:
    """The run after its first attempt, in which the verifier service died in the middle of a step, and which ended
    because the judge went away for good."""
    overrides = [
        *judge.overrides, "recipe/mode=colocate_async", "recipe/reward=margin_aware",
        "speciarl.reward.outage_deadline_s=10", f"trainer.total_training_steps={MANY_STEPS}", f"data.seed={SEED}",
    ]  # fmt: skip
    with running(LongRun(tmp_path_factory.mktemp("colocated"), laptop_data, overrides)) as attempt:
        attempt.start(*LOGGED, variables={"WANDB_MODE": "offline", "TENSORBOARD_DIR": str(attempt.folder / "board")})
        attempt.wait_for_step(1)
        (service,) = attempt.processes("ray::ServiceActor")
        service.kill()
        attempt.wait_for_step(VALIDATED_STEP)
        (successor,) = attempt.processes("ray::ServiceActor")
        assert successor.pid != service.pid
        judge.go_down()
        assert attempt.finish() == OUR_ERROR, attempt.log[-8000:]
        judge.come_up()
        yield attempt


@pytest.fixture(scope="module")
def metrics(run: LongRun) -> dict[int, dict[str, Any]]:
    """Of the first attempt, by step."""
    return run.steps(1)


def test_every_batch_is_whole_and_judged(
    run: LongRun, metrics: dict[int, dict[str, Any]], judge: JudgeBehindFaults
) -> None:
    assert sorted(metrics) == list(range(1, len(metrics) + 1))
    assert len(metrics) >= VALIDATED_STEP
    for step, measured in metrics.items():
        stored = run.trajectories(step)
        rollouts = Counter(one["uid"].split("_")[0] for one in stored)
        assert sorted(rollouts.values()) == [ROLLOUTS] * IMAGES
        assert_every_reward_is_the_judges(judge, stored, "margin_aware", PROBABILITY_ERROR)
        assert measured["speciarl/unscorable_rate"] == 0
        assert measured["speciarl/failed_rollouts"] == 0
        assert measured["actor/grad_norm"] > 0


def test_rollouts_earn_the_judges_probability_of_their_groups_level(
    run: LongRun, metrics: dict[int, dict[str, Any]]
) -> None:
    """Beside the values, which the test before computes."""
    stored = [row for step in metrics for row in run.trajectories(step)]
    assert [row for row in stored if row["verdict_source"] == "live" and 0 < row["score"] < 1]  # was in doubt
    # Equal labels are not equal rewards: the judge was surer of one than of the other.
    earned: dict[tuple[str, str], set[float]] = defaultdict(set)
    for row in stored:
        earned[row["uid"].split("_")[0], row["category"]].add(row["score"])
    assert any(len(scores) > 1 for scores in earned.values())


def test_rollouts_are_one_batch_ahead(metrics: dict[int, dict[str, Any]]) -> None:
    staleness = [metrics[step]["training/off_policy/trajectory_staleness/max"] for step in (1, 2, 3)]
    assert staleness[0] == 0
    assert max(staleness) == 1


def test_validation_with_several_tries(metrics: dict[int, dict[str, Any]]) -> None:
    measured = metrics[VALIDATED_STEP]
    sources = [name.removesuffix("/unscored_rate") for name in measured if name.endswith("/unscored_rate")]
    assert sources
    for source in [*sources, "val-core/mean"]:
        scores = [measured[f"{source}/{tries}correctness"] for tries in ("", "best@2/", f"best@{TRIES}/")]
        assert scores == sorted(scores)
    for source in sources:
        assert measured[f"{source}/unscored_rate"] == 0


def test_every_name_that_is_logged_is_documented(metrics: dict[int, dict[str, Any]]) -> None:
    logged = {name for measured in metrics.values() for name in measured if name.startswith(OURS)}
    assert undocumented({name for name in logged if not any(part in name for part in VERLS)}) == []


def test_the_loggers_that_people_look_at_have_the_same_numbers(
    run: LongRun, metrics: dict[int, dict[str, Any]]
) -> None:
    ours = {step: {k: v for k, v in row.items() if k.startswith(OURS)} for step, row in metrics.items()}
    events = EventAccumulator(str(run.folder / "board"), size_guidance={"scalars": 0}).Reload()
    on_board: dict[int, dict[str, float]] = defaultdict(dict)
    for name in filter(lambda name: name.startswith(OURS), events.Tags()["scalars"]):
        for event in events.Scalars(name):
            on_board[event.step][name] = event.value
    assert on_board == {step: pytest.approx(row, rel=1e-5) for step, row in ours.items()}
    assert wandb_history(run.folder, OURS) == ours
    pages = (run.folder / "wandb").glob("offline-run-*/files/media/html/speciarl/samples_*.html")
    assert all("data:image/jpeg;base64," in page.read_text() for page in [next(pages), *pages])


def test_sampled_rollouts_can_be_looked_at(run: LongRun) -> None:
    page = min((run.folder / "samples").iterdir())
    assert page.name == "step_0000002.html"
    text = page.read_text()
    assert text.count("<section>") == IMAGES
    assert text.count("<tr") == IMAGES * (1 + ROLLOUTS)
    assert text.count("data:image/jpeg;base64,") == IMAGES


def test_prompts_under_way_are_learnt_from_once(run: LongRun, judge: JudgeBehindFaults) -> None:
    learnt: Counter[str] = Counter()

    def learn(first: int, last: int) -> None:
        """Take in the steps of an attempt that the checkpoints keep."""
        for step in range(first, last + 1):
            stored = run.trajectories(step)
            rollouts = Counter(one["uid"].split("_")[0] for one in stored)
            assert sorted(rollouts.values()) == [ROLLOUTS] * IMAGES
            assert_every_reward_is_the_judges(judge, stored, "margin_aware", PROBABILITY_ERROR)
            learnt.update(rollouts.keys())

    # The step after the last whole one was given up, with two batches of prompts under way.
    given_up = run.saved_step()
    assert given_up >= VALIDATED_STEP
    assert f"step {given_up + 1} was given up, step {given_up} is saved" in run.log
    learn(1, given_up)

    # The verifier is back. Power fails in the middle of the checkpoint after the next one, with a batch under way.
    last, killed = given_up + 3, given_up + 1
    run.start("trainer.save_freq=1")
    run.wait_until(lambda: (run.folder / f"global_step_{killed + 1}").is_dir(), "a second checkpoint")
    run.kill()
    # Where the kill came after the last file of the checkpoint, as if it had come before it.
    (run.folder / TRACKER).write_text(str(killed))
    assert run.saved_step() == killed
    learn(given_up + 1, killed)

    run.start(f"trainer.total_training_steps={last}")
    assert run.finish() == 0, run.log[-8000:]
    assert sorted(run.steps()) == list(range(killed + 1, last + 1))
    learn(killed + 1, last)
    staleness = [step["training/off_policy/trajectory_staleness/max"] for step in run.steps().values()]
    assert 0 < max(staleness) <= 3  # the batch ahead, and the one of the step that was given up

    assert set(learnt.values()) == {1}
    under_way = {prompt_uid(SEED, given_up + 1, ordinal) for ordinal in range(IMAGES)}
    assert under_way <= set(learnt)
