"""Members: rollouts of a log as a reward function sees them, with or without verdict noise."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from speciarl.category import Category
from speciarl.errors import ConfigError
from speciarl.evaluation.outcome import Outcome
from speciarl.evaluation.replay.rollouts import Ints, Mask, Outcomes, Rollouts
from speciarl.reward.member import Member, Unparsable
from speciarl.reward.noise import Noise, RolloutIdentity
from speciarl.verdict import Reason, Source, Unscorable, Verdict

_SOURCES = tuple(Source)
_LOWEST = int(min(Outcome))
_UNSCORED = Unscorable(Reason.TIMEOUT)  # rewards are told that there is no verdict, whatever the reason


def member(
    outcome: Outcome, source: Source, margin: float | None = None, probabilities: tuple[float, ...] | None = None
) -> Member:
    """The member that an outcome stands for. An answer too long for a name is a wrong one, as in training."""
    if outcome is Outcome.UNSCORED:
        return _UNSCORED
    if outcome is Outcome.UNPARSABLE:
        return Unparsable()
    return Verdict(Category(max(outcome, Outcome.WRONG)), margin, source, probabilities)


def drawn(rollouts: Rollouts, noise: Noise, rows: Ints) -> Outcomes:
    """Outcomes of some rows after noise, drawn as training draws it: from the log's images, steps and sessions."""
    found = rollouts.outcome[rows]
    if not noise.probability:
        return found
    whole = {outcome: member(outcome, Source.LIVE) for outcome in Outcome}
    columns = zip(
        found.tolist(), rollouts.image.take(rows).to_pylist(), rollouts.step[rows].tolist(),
        rollouts.session[rows].tolist(), strict=True,
    )  # fmt: skip
    for place, (outcome, image, step, session) in enumerate(columns):
        before = whole[outcome]
        after = noise.apply(before, RolloutIdentity(image, step, session))
        if after is not before and isinstance(after, Verdict):
            found[place] = after.category
    return found


def noisy(rollouts: Rollouts, noise: Noise | None) -> Outcomes:
    """Outcomes as the rewards are to see them; `noise` None leaves those that the run's reward saw."""
    if noise is not None:
        return drawn(rollouts, noise, np.arange(len(rollouts)))
    return rollouts.outcome if rollouts.logged is None else rollouts.logged.seen


def chosen_noise(rollouts: Rollouts, probability: float | None, seed: int | None) -> Noise:
    """Noise to draw: what is None is as the run had it.

    Raises ConfigError where the probability is wanted of a log that does not tell it, or tells several.
    """
    logged = rollouts.logged
    kinds = {kind.reward.noise for kind in logged.settings} if logged is not None else {Noise()}
    known = len(kinds) == 1 and (logged is None or bool((logged.which >= 0).all()))
    if probability is None and not known:
        raise ConfigError("the log does not tell one kind of noise for all its rows; give --noise, e.g. --noise 0")
    run = kinds.pop() if known else Noise()
    return Noise(
        probability=run.probability if probability is None else probability, seed=run.seed if seed is None else seed
    )


def coded(rollouts: Rollouts, seen: Outcomes, labels_only: bool) -> tuple[Ints, Sequence[Member]]:
    """The rollouts as numbers, and the member that each number stands for.

    Args:
        rollouts: the rows, shape (rollouts,).
        seen: their outcomes as the reward is to see them, of the same shape.
        labels_only: whether the reward looks at categories alone; then there are nine members, of which few groups can
            be made. Otherwise each row may be a member of its own.
    """
    if labels_only:
        return seen.astype(np.int64) - _LOWEST, [member(outcome, Source.LIVE) for outcome in sorted(Outcome)]
    if rollouts.probabilities is None and np.isnan(rollouts.margin).all():
        both = [member(outcome, source) for outcome in sorted(Outcome) for source in _SOURCES]
        return (seen.astype(np.int64) - _LOWEST) * len(_SOURCES) + rollouts.source, both
    return np.arange(len(rollouts)), _each(rollouts, seen, seen != rollouts.outcome)


def _each(rollouts: Rollouts, seen: Outcomes, moved: Mask) -> list[Member]:
    probabilities: list[tuple[float, ...] | None] = [None] * len(rollouts)
    if rollouts.probabilities is not None:
        plain = rollouts.probabilities.to_pylist()
        probabilities = [_numbers(one) for one in plain]
    columns = zip(seen.tolist(), rollouts.source.tolist(), rollouts.margin.tolist(), probabilities, moved, strict=True)
    return [
        # A moved verdict has neither margin nor probabilities: the judge's were about another category.
        member(Outcome(outcome), _SOURCES[source])
        if is_moved
        else member(Outcome(outcome), _SOURCES[source], None if margin != margin else margin, spread)
        for outcome, source, margin, spread, is_moved in columns
    ]


def _numbers(found: str | Sequence[float] | None) -> tuple[float, ...] | None:
    return None if found is None else tuple(json.loads(found) if isinstance(found, str) else found)
