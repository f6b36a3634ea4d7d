"""``recipe/mode=sync_overlap`` with a judge that is slow, loses verdicts and at last falls silent.

The comparison with another run comes last: it may have to wait for that run, and this file's own is better begun first.
"""

from pathlib import Path

import pytest
from grpo_sweep import GrpoSweep
from laptop_run import IMAGES, ROLLOUTS, LaptopRun, train
from late_loop import ANSWERED_STEPS, lost
from stored_rewards import assert_the_baseline_is_the_groups

from speciarl import answer, reward
from speciarl.category import Category
from speciarl.taxonomy import Taxonomy
from speciarl.verdict import Pair, Source, Verdict

pytestmark = pytest.mark.timeout(1800)  # several runs, two minutes each on an idle machine

STEPS = range(1, ANSWERED_STEPS + 1)
JUDGE = (
    "actor_rollout_ref.rollout.agent.agent_loop_manager_class=late_loop.LateManager",
    "speciarl.reward.max_unscorable_rate=0.9",
    "speciarl.reward.outage_deadline_s=15",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, laptop_data: Path) -> LaptopRun:
    return train(
        tmp_path_factory.mktemp("late"), laptop_data, "recipe/mode=sync_overlap", *JUDGE,
        f"trainer.total_training_steps={ANSWERED_STEPS + 2}", status=2, modules=[Path(__file__).parent],
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
            assert_the_baseline_is_the_groups(rows)
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


def test_it_learns_the_same_from_the_same_rollouts_as_sync(run: LaptopRun, grpo_sweep: GrpoSweep) -> None:
    """In the first step, whose policy is the same as that of the sweep's runs, whose mode is sync."""
    late, in_time = run.groups(1), grpo_sweep.run("dynamic").groups(1)
    assert late.keys() < in_time.keys()  # those that are wholly lost
    whole = 0
    for uid, rows in late.items():
        if len(rows) == ROLLOUTS:
            assert rows == in_time[uid]
            whole += 1
        said = {row["uid"]: row["output"] for row in in_time[uid]}
        assert all(row["output"] == said[row["uid"]] for row in rows)
    assert 0 < whole < len(late)
