"""The dynamic reward: the best rollout of a group sets the level that earns (paper, section on the
reward)."""

from collections.abc import Sequence

from speciarl.category import Category
from speciarl.reward.member import Member, Unparsable
from speciarl.verdict import Verdict

UNPARSABLE_REWARD = -1.0
"""What a response without an answer earns (reference implementation)."""


def reference_level(members: Sequence[Member]) -> Category | None:
    """The category from which on a rollout earns; None when nobody in the group was scored.

    It is the best category of the group, except that MORE_SPECIFIC asks for SPECIFIC only, so that
    overshooting is never demanded, and that WRONG asks for ABSTAIN, so that a group of wrong answers earns
    nothing.
    """
    best = max((member.category for member in members if isinstance(member, Verdict)), default=None)
    if best is None:
        return None
    return min(max(best, Category.ABSTAIN), Category.SPECIFIC)


def rewards(members: Sequence[Member]) -> list[float | None]:
    """One reward per member of a group (all rollouts of one image), shape (n,), in the members' order.

    1 or 0 for a verdict, -1 for an unparsable response, None for an unscorable one, which is no reward at
    all: it must be left out of every mean and baseline.
    """
    level = reference_level(members)
    return [_reward(member, level) for member in members]


def _reward(member: Member, level: Category | None) -> float | None:
    if isinstance(member, Unparsable):
        return UNPARSABLE_REWARD
    if not isinstance(member, Verdict):
        return None
    return 1.0 if level is not None and member.category >= level else 0.0
