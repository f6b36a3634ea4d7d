"""Check of a replay: the rewards that the run logged, computed again from its verdicts and settings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from speciarl.errors import ConfigError
from speciarl.evaluation.outcome import Outcome
from speciarl.evaluation.replay import rewards
from speciarl.evaluation.replay.members import drawn
from speciarl.evaluation.replay.rollouts import Floats, Outcomes, Rollouts

TOLERANCE = 1e-6
"""Of scores alone, which the trainer rounds to float32. Rewards and categories must be equal."""


@dataclass(frozen=True, slots=True)
class Check:
    """What became of the comparison."""

    compared: int
    """Rollouts whose settings the log tells."""
    equal: int
    first_difference: str | None
    """Where the first rollout that is not equal stands, and what it should be."""


def against_log(rollouts: Rollouts) -> Check:
    """Compare, row by row: the category that the reward saw, the group's reward, and the score with its penalty.

    Raises ConfigError for a reward of the run that cannot be found.
    """
    logged = rollouts.logged
    if logged is None:
        return Check(0, 0, None)
    seen, earned = rollouts.outcome.copy(), np.full(len(rollouts), np.nan)
    for place, kind in enumerate(logged.settings):
        rows = np.flatnonzero(logged.which == place)
        if not len(rows):
            continue
        seen[rows] = drawn(rollouts, kind.reward.noise, rows)
        try:
            wanted = rewards.named(kind.reward.name, kind.reward.params)
        except ConfigError as error:
            raise ConfigError(f"the run's own {error}; put its module on PYTHONPATH, or give --no-check") from error
        earned[rows] = rewards.compute(rollouts.take(rows), logged.seen[rows], wanted)
    compared = logged.which >= 0
    score = logged.reward + rollouts.penalty
    same = (seen == logged.seen) & (earned == logged.reward)
    same &= np.abs(score - logged.score) <= TOLERANCE * np.maximum(1, np.abs(score))
    odd = np.flatnonzero(compared & ~same)
    first = _difference(rollouts, int(odd[0]), seen, earned) if len(odd) else None
    return Check(int(compared.sum()), int(compared.sum()) - len(odd), first)


def _difference(rollouts: Rollouts, row: int, seen: Outcomes, earned: Floats) -> str:
    logged = rollouts.logged
    assert logged is not None
    at = rollouts.place(row)
    if seen[row] != logged.seen[row]:
        return f"{at}: seen_category is {Outcome(logged.seen[row]).key}, replayed {Outcome(seen[row]).key}"
    if earned[row] != logged.reward[row]:
        return f"{at}: group_reward is {logged.reward[row]!r}, replayed {earned[row]!r}"
    whole = logged.reward[row] + rollouts.penalty[row]
    return f"{at}: score is {logged.score[row]!r}, group_reward and overlong_penalty add up to {whole!r}"
