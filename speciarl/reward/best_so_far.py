"""EXPERIMENTAL, not in the paper: the dynamic reward, measured against the best that an image ever reached."""

from collections.abc import Sequence

from speciarl.category import Category
from speciarl.reward.dynamic import earning_level
from speciarl.reward.member import Member, best_category, per_verdict


def rewards(members: Sequence[Member], *, best_so_far: Category | None) -> list[float | None]:
    """The dynamic reward with a level that never falls: at least what the image reached in any earlier step.

    `best_so_far` is not a parameter of the configuration: it is filled in for every group, from the run's memory
    (`speciarl.reward.memory`). None for an image that was never scored. A group that falls behind earns nothing.
    """
    reached = [best for best in (best_category(members), best_so_far) if best is not None]
    level = earning_level(max(reached, default=Category.WRONG))
    return per_verdict(members, lambda verdict: float(verdict.category >= level))
