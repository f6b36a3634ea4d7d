"""Replay: rewards over the rollouts of a log, and everything that is said about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from speciarl.errors import ConfigError
from speciarl.evaluation.replay import rewards, statistics
from speciarl.evaluation.replay.check import Check
from speciarl.evaluation.replay.members import noisy
from speciarl.evaluation.replay.rewards import NamedReward
from speciarl.evaluation.replay.rollouts import Rollouts
from speciarl.evaluation.replay.statistics import Agreement, RewardSummary
from speciarl.reward import weighs_probabilities
from speciarl.reward.noise import Noise


@dataclass(frozen=True, slots=True)
class Replay:
    """Results of a replay."""

    log: str
    """Path as it was given."""
    kind: str
    judge: str
    """``as logged``, or the judge asked for."""
    noise: str
    """``as logged``, or probability and seed."""
    n: int | None
    """Rollouts of a group; None where groups are as logged."""
    rollouts: int
    """Rollouts asked for, those that left no row included."""
    groups: int
    moved: float
    """Share of the rows whose verdict noise moved."""
    outcomes: Mapping[str, float]
    """Shares by true verdicts."""
    seen_outcomes: Mapping[str, float]
    """Shares by the verdicts that the rewards saw."""
    rewards: Mapping[str, RewardSummary]
    agreements: Sequence[Agreement]
    check: Check | None
    """None where it was not asked for."""
    notes: Sequence[str]


def replay(
    rollouts: Rollouts,
    wanted: Sequence[NamedReward],
    *,
    log: str,
    judge: str = "as logged",
    noise: Noise | None = None,
    n: int | None = None,
    check: Check | None = None,
) -> Replay:
    """Replay rewards over the rollouts of a log.

    Args:
        rollouts: as read from the log, or judged anew.
        wanted: the rewards.
        log, judge: what the results are said to be of.
        noise: noise to draw; None for what the run's rewards saw.
        n: rollouts of a group, see `Rollouts.split`; None for groups as logged.
        check: of the log, made before.

    Raises ConfigError where no group has n rollouts, or a reward fails.
    """
    notes = list(rollouts.notes)
    if n is not None:
        largest = int(rollouts.size.max(initial=0))
        if n > largest:
            raise ConfigError(f"--n {n}: the groups of {log} have at most {largest} rollouts; give a smaller number")
        rollouts = rollouts.split(n)
    seen = noisy(rollouts, noise)
    for one in wanted:
        if weighs_probabilities(one.function) and rollouts.probabilities is None:
            notes.append(f"{one.spelled}: no verdict of the log has probabilities, so each counts as certain")
    computed = {one.spelled: rewards.compute(rollouts, seen, one) for one in wanted}
    return Replay(
        log=log,
        kind=rollouts.kind,
        judge=judge,
        noise="as logged" if noise is None else f"probability {noise.probability:g}, seed {noise.seed}",
        n=n,
        rollouts=int(rollouts.size.sum()),
        groups=len(rollouts.size),
        moved=float((seen != rollouts.outcome).mean()) if len(seen) else 0.0,
        outcomes=statistics.outcome_rates(rollouts, rollouts.outcome),
        seen_outcomes=statistics.outcome_rates(rollouts, seen),
        rewards={name: statistics.summarise(rollouts, found) for name, found in computed.items()},
        agreements=statistics.agreements(rollouts, computed),
        check=check,
        notes=notes,
    )
