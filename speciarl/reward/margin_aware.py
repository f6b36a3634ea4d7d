"""Margin-aware reward (EXPERIMENTAL, not in the paper): the dynamic reward on probabilities instead of labels."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from speciarl.category import Category
from speciarl.reward.dynamic import earning_level
from speciarl.reward.member import Member, per_verdict
from speciarl.verdict import Verdict


def reaches(verdict: Verdict, level: Category) -> float:
    """The judge's probability, in [0, 1], that the answer is of this level or better.

    A verdict without probabilities counts as certain of its label: 1 or 0. So does one that was decided without a
    judge, and one that noise has moved.
    """
    if verdict.probabilities is None:
        return float(verdict.category >= level)
    return min(1.0, sum(verdict.probabilities[level:]))


def rewards(members: Sequence[Member], *, confidence: Annotated[float, Field(gt=0, le=1)] = 0.5) -> list[float | None]:
    """One reward per member, shape (n,): its probability of reaching the group's reference level.

    The group's best is the highest category that some member reaches with probability `confidence` or more; the
    reference level follows from it as in the dynamic reward.

    In [0, 1]; -1 for an unparsable response, None for an unscorable one. With certain verdicts this is the dynamic
    reward. With uncertain ones a group of equal labels still has a signal, and a group of wrong answers may earn a
    little.
    """
    scored = [member for member in members if isinstance(member, Verdict)]
    reached = (level for level in Category if any(reaches(verdict, level) >= confidence for verdict in scored))
    level = earning_level(max(reached, default=Category.WRONG))
    return per_verdict(members, lambda verdict: reaches(verdict, level))
