"""Dynamic reward: the best rollout of a group sets the level that earns (paper, section on the reward)."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from speciarl.category import Category
from speciarl.reward.member import Member, per_verdict
from speciarl.verdict import Verdict


def earning_level(best: Category) -> Category:
    """The category from which on a rollout earns, in a group whose best is `best`.

    It is that best, except that MORE_SPECIFIC asks for SPECIFIC only, so that overshooting is never demanded, and that
    WRONG asks for ABSTAIN, so that a group of wrong answers earns nothing.
    """
    return min(max(best, Category.ABSTAIN), Category.SPECIFIC)


def reference_level(members: Sequence[Member], support: int = 1) -> Category | None:
    """The category from which on a rollout of the group earns; None when nobody in it was scored.

    The group's best is the highest level that at least `support` of its scored members reach. With fewer scored
    members than that it is the lowest of theirs: then everyone earns who is not wrong.
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
