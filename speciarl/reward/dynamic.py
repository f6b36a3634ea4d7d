"""Dynamic reward: the best rollout of a group sets the level that earns (paper, section on the reward)."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from speciarl.category import Category
from speciarl.reward.member import Member, per_verdict
from speciarl.verdict import Verdict


def earning_level(best: Category) -> Category:
    """The lowest category that earns in a group whose best verdict is `best`.

    It is `best` itself, with two exceptions: MORE_SPECIFIC lowers to SPECIFIC, so that overshooting is never demanded,
    and WRONG rises to ABSTAIN, so that a group of wrong answers earns nothing.
    """
    return min(max(best, Category.ABSTAIN), Category.SPECIFIC)


def reference_level(members: Sequence[Member], support: int = 1) -> Category | None:
    """The reference level c*: the lowest category that earns in this group; None when no member has a verdict.

    The group's best is the highest category that at least `support` members with a verdict reach. With fewer such
    members than that it is their lowest category: then every member earns that is not wrong.
    """
    ranked = sorted((member.category for member in members if isinstance(member, Verdict)), reverse=True)
    return earning_level(ranked[:support][-1]) if ranked else None


def rewards(members: Sequence[Member], *, support: Annotated[int, Field(ge=1)] = 1) -> list[float | None]:
    """One reward per member of a group (all rollouts of one image), shape (n,), in the members' order.

    1 for a verdict at the reference level or better, 0 for one below, -1 for an unparsable response, None for an
    unscorable one. The paper's rule is `support` 1: whatever a single rollout reaches is asked of all.
    """
    level = reference_level(members, support)
    return per_verdict(members, lambda verdict: float(level is not None and verdict.category >= level))


def single(members: Sequence[Member]) -> list[float | None]:
    """As `rewards`, but only the first member that reaches the reference level earns; SPECIFIC and MORE_SPECIFIC tie.

    In the members' order, which is that of the sessions. Nobody earns where all are wrong.
    """
    earned = rewards(members)
    first = earned.index(1.0) if 1.0 in earned else None
    return [0.0 if reward == 1.0 and index != first else reward for index, reward in enumerate(earned)]
