"""Outcome: what became of one answer: a category, one of three ways of being no answer, or not scored at all."""

import enum

from speciarl.answer import normalise
from speciarl.category import Category
from speciarl.verdict import Judgement, Unscorable


class Outcome(enum.IntEnum):
    """Outcome of one answer; a larger value is a better answer. Values from 0 on are those of `Category`."""

    UNSCORED = -3
    """No prediction or no verdict could be had. Never counted as wrong: it widens the bounds of every number."""
    TOO_LONG = -2
    """The answer is longer than any name, so that no judge is asked."""
    UNPARSABLE = -1
    """The response holds no answer."""
    WRONG = 0
    ABSTAIN = 1
    GENERIC = 2
    LESS_SPECIFIC = 3
    SPECIFIC = 4
    MORE_SPECIFIC = 5

    @property
    def label(self) -> str:
        """Its name for people, e.g. ``less specific``."""
        return self.name.lower().replace("_", " ")

    @property
    def key(self) -> str:
        """Its name in files, e.g. ``less_specific``."""
        return self.name.lower()

    @property
    def category(self) -> Category | None:
        """The category, or None for what is no verdict."""
        return Category(self.value) if self >= Outcome.WRONG else None


SCORED: tuple[Outcome, ...] = tuple(outcome for outcome in Outcome if outcome is not Outcome.UNSCORED)
"""All outcomes of scored answers, worst first."""


def without_judge(answer: str | None, too_long_chars: int) -> Outcome | None:
    """The outcome of an answer that no judge has to see; None for one that a judge decides.

    `too_long_chars` is the longest normalised answer that is still taken for a name.
    """
    if answer is None:
        return Outcome.UNPARSABLE
    return Outcome.TOO_LONG if len(normalise(answer)) > too_long_chars else None


def of_judgement(judgement: Judgement) -> Outcome:
    """The outcome that a judgement means."""
    return Outcome.UNSCORED if isinstance(judgement, Unscorable) else Outcome(int(judgement.category))
