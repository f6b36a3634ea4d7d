"""Statistics of replayed rewards: means, signal, advantages, and how far two rewards agree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from speciarl.evaluation.outcome import Outcome
from speciarl.evaluation.replay.rollouts import Floats, Ints, Outcomes, Rollouts

EPSILON = 1e-6
"""Added to a group's standard deviation, as veRL's GRPO does."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Advantages of all scored rollouts. Their mean is 0 within every group of two or more."""

    mean_abs: float
    """Mean of the absolute values: how much there is to learn from."""
    std: float
    min: float
    max: float


@dataclass(frozen=True, slots=True)
class RewardSummary:
    """One reward over the whole log. What is undefined is None."""

    rollouts: int
    """Rollouts with a reward."""
    groups: int
    """Groups that reached their quorum."""
    mean: float | None
    """Mean group reward."""
    mean_score: float | None
    """The same with the log's overlong penalties."""
    signal: float | None
    """Share of the groups in which not all rewards are equal."""
    grpo: Spread | None
    """Advantages divided by the group's standard deviation, penalties included."""
    dr_grpo: Spread | None
    """Advantages without that division."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far two rewards agree, over the rollouts that both reward."""

    first: str
    second: str
    equal: float | None
    """Share of the rollouts that earn the same."""
    correlation: float | None
    """Pearson's; None where one of them is constant."""
    ranking: float | None
    """Share of the groups whose rollouts both put in the same order, ties included."""


def outcome_rates(rollouts: Rollouts, outcomes: Outcomes) -> dict[str, float]:
    """Shares of the outcomes by key: the unscored of all rollouts, what left no row among them, the others of the
    scored ones, so that those sum to 1."""
    asked, scored = int(rollouts.size.sum()), outcomes[outcomes != Outcome.UNSCORED]
    rates = {
        outcome.key: float(np.mean(scored == outcome)) if len(scored) else 0.0
        for outcome in Outcome
        if outcome is not Outcome.UNSCORED
    }
    return {Outcome.UNSCORED.key: 1 - len(scored) / asked if asked else 0.0, **rates}


def summarise(rollouts: Rollouts, rewards: Floats) -> RewardSummary:
    """Summary of rewards of shape (rollouts,), NaN for none."""
    rows = np.flatnonzero(~np.isnan(rewards))
    if not len(rows):
        return RewardSummary(0, 0, None, None, None, None, None)
    earned, starts = rewards[rows], _starts(rollouts.group[rows])
    differs = np.maximum.reduceat(earned, starts) != np.minimum.reduceat(earned, starts)
    scores = earned + rollouts.penalty[rows]
    return RewardSummary(
        len(rows), len(starts), float(earned.mean()), float(scores.mean()), float(differs.mean()),
        _spread(advantages(scores, starts, by_deviation=True)), _spread(advantages(scores, starts, by_deviation=False)),
    )  # fmt: skip


def advantages(scores: Floats, starts: Ints, by_deviation: bool) -> Floats:
    """veRL's advantages (`compute_grpo_outcome_advantage`) of scores, of the same shape.

    Args:
        scores: of all rollouts, group by group.
        starts: first row of each group.
        by_deviation: whether to divide by the group's standard deviation (n - 1), as GRPO does and Dr.GRPO does not.
    """
    counts = np.diff(np.append(starts, len(scores)))
    # Of a lone rollout veRL takes the mean for 0 and the deviation for 1.
    mean = np.where(counts > 1, np.add.reduceat(scores, starts) / counts, 0.0)
    centred: Floats = scores - np.repeat(mean, counts)
    if not by_deviation:
        return centred
    variance = np.add.reduceat(centred**2, starts) / np.maximum(counts - 1, 1)
    deviation = np.where(counts > 1, np.sqrt(variance), 1.0)
    scaled: Floats = centred / np.repeat(deviation + EPSILON, counts)
    return scaled


def agreements(rollouts: Rollouts, rewards: Mapping[str, Floats]) -> list[Agreement]:
    """Agreement of every two rewards, each of shape (rollouts,) with NaN for none."""
    names = list(rewards)
    return [
        _agreement(rollouts, first, second, rewards[first], rewards[second])
        for place, first in enumerate(names)
        for second in names[place + 1 :]
    ]


def _agreement(rollouts: Rollouts, first: str, second: str, one: Floats, other: Floats) -> Agreement:
    rows = np.flatnonzero(~np.isnan(one) & ~np.isnan(other))
    if not len(rows):
        return Agreement(first, second, None, None, None)
    one, other, group = one[rows], other[rows], rollouts.group[rows]
    constant = np.ptp(one) == 0 or np.ptp(other) == 0
    correlation = None if constant else float(np.corrcoef(one, other)[0, 1])
    same = np.logical_and.reduceat(_ranks(group, one) == _ranks(group, other), _starts(group))
    return Agreement(first, second, float(np.mean(one == other)), correlation, float(same.mean()))


def _ranks(group: Ints, values: Floats) -> Ints:
    """Dense rank of each value in its group; equal values have the same."""
    order = np.lexsort((values, group))
    new_group = np.diff(group[order], prepend=-1) != 0
    steps = np.cumsum(np.diff(values[order], prepend=np.nan) != 0)
    ranks = np.empty(len(values), dtype=np.int64)
    first = steps[new_group]
    ranks[order] = steps - np.repeat(first, np.diff(np.append(np.flatnonzero(new_group), len(values))))
    return ranks


def _spread(found: Floats) -> Spread:
    return Spread(float(np.abs(found).mean()), float(found.std()), float(found.min()), float(found.max()))


def _starts(group: Ints) -> Ints:
    return np.flatnonzero(np.diff(group, prepend=-1))
