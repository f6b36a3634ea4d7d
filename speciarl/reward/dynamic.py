"""The dynamic reward: the best rollout of a group sets the level that earns (paper, section on the reward)."""

from collections.abc import Sequence

from speciarl.category import Category
from speciarl.reward.member import Member, best_category, per_verdict
from speciarl.verdict import Verdict


def earning_level(best: Category) -> Category:
    """The category from which on a rollout earns, in a group whose best is `best`.

    It is that best, except that MORE_SPECIFIC asks for SPECIFIC only, so that overshooting is never demanded, and that
    WRONG asks for ABSTAIN, so that a group of wrong answers earns nothing.
    """
    return min(max(best, Category.ABSTAIN), Category.SPECIFIC)


def reference_level(members: Sequence[Member]) -> Category | None:
    """The category from which on a rollout of the group earns; None when nobody in it was scored."""
    best = best_category(members)
    return None if best is None else earning_level(best)


def rewards(members: Sequence[Member]) -> list[float | None]:
    """One reward per member of a group (all rollouts of one image), shape (n,), in the members' order.

    1 for a verdict at the reference level or better, 0 for one below, -1 for an unparsable response, None for an
    unscorable one.
    """
    level = reference_level(members)
    return per_verdict(members, lambda verdict: float(level is not None and verdict.category >= level))


def single(members: Sequence[Member]) -> list[float | None]:
    """As `rewards`, but only the first member with the group's very best category earns: MORE_SPECIFIC beats SPECIFIC.

    In the members' order, which is that of the sessions. Nobody earns where all are wrong.
    """
    best = best_category(members)
    first = next(
        (index for index, member in enumerate(members) if isinstance(member, Verdict) and member.category == best), None
    )
    earned = per_verdict(members, lambda _: 0.0)
    if first is not None and best is not Category.WRONG:
        earned[first] = 1.0
    return earned
