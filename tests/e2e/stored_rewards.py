"""Stored trajectories held against the judge's own word."""

import statistics
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import pytest
from judge_behind_faults import JudgeBehindFaults

from speciarl import answer, reward
from speciarl.verdict import Pair, Verdict

GRPO_EPSILON = 1e-6


def answer_of(trajectory: dict[str, Any]) -> str | None:
    """What a stored trajectory answers; None when nothing can be parsed."""
    return answer.parse(trajectory["output"])


def assert_the_baseline_is_the_groups(group: Sequence[dict[str, Any]]) -> None:
    """GRPO's advantages among the trajectories of one group that were stored, whatever became of the others."""
    scores = [one["score"] for one in group]
    mean, spread = (statistics.mean(scores), statistics.stdev(scores)) if len(scores) > 1 else (0.0, 1.0)
    expected = [(score - mean) / (spread + GRPO_EPSILON) for score in scores]
    assert [one["advantage"] for one in group] == pytest.approx(expected, abs=1e-4)


def assert_every_reward_is_the_judges(
    judge: JudgeBehindFaults, stored: Sequence[dict[str, Any]], name: str = "dynamic", tolerance: float = 0.0
) -> None:
    """Recompute all rewards, and GRPO's advantages, from the text that was stored and verdicts that never met a fault.

    DAPO's penalty for long answers comes on top of the reward; what it must be is not looked at here.

    Probabilities need a tolerance: the judge's depend, in their last digits, on what else is in its batch.
    """
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for one in stored:
        groups[one["uid"].split("_")[0]].append(one)
    pairs = [Pair(one["gts"], text) for one in stored if (text := answer_of(one)) is not None]
    verdicts = dict(zip(pairs, judge.truth(pairs), strict=True))
    assert all(isinstance(verdict, Verdict) for verdict in verdicts.values())
    for group in groups.values():
        assert_the_baseline_is_the_groups(group)
        members = [
            reward.Unparsable() if (text := answer_of(one)) is None else verdicts[Pair(one["gts"], text)]
            for one in group
        ]
        expected = reward.load(name)(members)
        assert [one["group_reward"] for one in group] == pytest.approx(expected, rel=0, abs=tolerance)
        paid = [one["group_reward"] + one["overlong_penalty"] for one in group]
        assert [one["score"] for one in group] == pytest.approx(paid, rel=0, abs=1e-6)  # rounded to a float32
