"""The reward on the judge's probabilities, with a judge that gives them."""

from collections import defaultdict
from pathlib import Path

from judge_behind_faults import judge_behind_faults
from laptop_run import IMAGES, ROLLOUTS, STEPS, train
from stored_rewards import assert_every_reward_is_the_judges

PROBABILITY_ERROR = 1e-3


def test_rollouts_earn_the_judges_probability_of_their_groups_level(tmp_path: Path, laptop_data: Path) -> None:
    with judge_behind_faults(tmp_path) as judge:
        run = train(tmp_path / "run", laptop_data, *judge.overrides, "recipe/reward=margin_aware")
        stored = [row for step in range(1, STEPS + 1) for row in run.trajectories(step)]
        assert len(stored) == STEPS * IMAGES * ROLLOUTS
        assert_every_reward_is_the_judges(judge, stored, "margin_aware", PROBABILITY_ERROR)
    doubted = [row for row in stored if row["verdict_source"] == "live" and 0 < row["score"] < 1]
    assert doubted
    # Equal labels are not equal rewards: the judge was surer of one than of the other.
    earned: dict[tuple[str, str], set[float]] = defaultdict(set)
    for row in stored:
        earned[row["uid"].split("_")[0], row["category"]].add(row["score"])
    assert any(len(scores) > 1 for scores in earned.values())
