"""``recipe/mode=sync_overlap`` with a judge that is slow, loses verdicts and at last falls silent."""

import statistics
from pathlib import Path

import pytest
from laptop_run import IMAGES, ROLLOUTS, LaptopRun, train
from late_loop import ANSWERED_STEPS, lost

from speciarl import answer, reward
from speciarl.category import Category
from speciarl.taxonomy import Taxonomy
from speciarl.verdict import Pair, Source, Verdict

STEPS = range(1, ANSWERED_STEPS + 1)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, laptop_data: Path) -> LaptopRun:
    return train(
        tmp_path_factory.mktemp("late"), laptop_data, "recipe/mode=sync_overlap",
        "actor_rollout_ref.rollout.agent.agent_loop_manager_class=late_loop.LateManager",
        f"trainer.total_training_steps={ANSWERED_STEPS + 2}", "speciarl.reward.max_unscorable_rate=0.9",
        "speciarl.reward.outage_deadline_s=8",
        status=2, modules=[Path(__file__).parent],
    )  # fmt: skip


def member(row: dict[str, object]) -> reward.Member:
    """What the reward saw of a stored trajectory, by its record."""
    if row["category"] == "unparsable":
        return reward.Unparsable()
    return Verdict(Category[str(row["category"]).upper()], None, Source.TAXONOMY)


def test_what_got_no_verdict_is_not_learnt_from(run: LaptopRun) -> None:
    missing = 0
    for step in STEPS:
        rows = run.trajectories(step)
        missing += IMAGES * ROLLOUTS - len(rows)
        for row in rows:
            uid, session, _ = row["uid"].split("_")
            assert row["category"] == "unparsable" or not lost(uid, int(session)), row
        assert run.metrics[step]["speciarl/unscorable_rate"] == 1 - len(rows) / (IMAGES * ROLLOUTS)
    assert missing > 0


def test_every_reward_and_every_baseline_is_that_of_the_judged(run: LaptopRun, laptop_data: Path) -> None:
    taxonomy = Taxonomy.load(laptop_data / "taxonomy.json")
    shrunk = 0
    for step in STEPS:
        for rows in run.groups(step).values():
            shrunk += len(rows) < ROLLOUTS
            for row in rows:
                text = answer.parse(row["output"])
                assert member(row) == (
                    reward.Unparsable()
                    if text is None
                    else Verdict(taxonomy.judge(Pair(row["gts"], text)), None, Source.TAXONOMY)
                )
            scores = [row["score"] for row in rows]
            assert scores == list(reward.load("dynamic")([member(row) for row in rows]))
            spread = statistics.stdev(scores) if len(scores) > 1 else 1.0
            mean = statistics.mean(scores) if len(scores) > 1 else 0.0
            expected = [(score - mean) / (spread + 1e-6) for score in scores]
            assert [row["advantage"] for row in rows] == pytest.approx(expected, abs=1e-4)
    assert shrunk > 0


def test_log_probabilities_are_computed_while_verdicts_are_out(run: LaptopRun) -> None:
    for step in STEPS:
        metrics = run.metrics[step]
        computing = metrics["timing_s/old_log_prob"] + metrics["timing_s/ref"]
        assert metrics["speciarl/verifier/wait_s"] == metrics["timing_s/verdicts"] > 0
        assert metrics["speciarl/verifier/wait_s"] + computing < metrics["speciarl/verifier/judging_s"]


def test_a_judge_that_falls_silent_then_ends_the_run_at_its_last_whole_step(run: LaptopRun) -> None:
    last = ANSWERED_STEPS
    assert f"speciarl: step {last + 1} was given up, step {last} is saved: the verifier was asked for" in run.log
    assert (run.folder / "latest_checkpointed_iteration.txt").read_text() == str(last)
    assert sorted(run.metrics) == list(STEPS)
