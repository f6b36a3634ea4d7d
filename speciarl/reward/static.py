"""Static rewards: each rollout earns by its own category, whatever its siblings achieved (paper, baselines)."""

from collections.abc import Mapping, Sequence

from speciarl.category import Category
from speciarl.reward.member import Member, per_verdict

BINARY: Mapping[Category, float] = {
    Category.WRONG: 0.0,
    Category.ABSTAIN: 0.0,
    Category.GENERIC: 0.0,
    Category.LESS_SPECIFIC: 0.0,
    Category.SPECIFIC: 1.0,
    Category.MORE_SPECIFIC: 1.0,
}
"""Reward 1 for exact answers only."""

GRADED_1: Mapping[Category, float] = {
    **BINARY,
    Category.ABSTAIN: 0.25,
    Category.GENERIC: 0.5,
    Category.LESS_SPECIFIC: 0.75,
}
"""Rewards that grow with each category, abstaining included."""

GRADED_2: Mapping[Category, float] = {**BINARY, Category.GENERIC: 0.5, Category.LESS_SPECIFIC: 0.75}
"""Rewards for every right answer."""

GRADED_3: Mapping[Category, float] = {**BINARY, Category.LESS_SPECIFIC: 0.75}
"""Rewards for exact and nearly exact answers."""


def binary(members: Sequence[Member]) -> list[float | None]:
    """One reward per member by `BINARY`; -1 for an unparsable response, None for an unscorable one."""
    return by_category(members, BINARY)


def graded_1(members: Sequence[Member]) -> list[float | None]:
    """One reward per member by `GRADED_1`; otherwise as `binary`."""
    return by_category(members, GRADED_1)


def graded_2(members: Sequence[Member]) -> list[float | None]:
    """One reward per member by `GRADED_2`; otherwise as `binary`."""
    return by_category(members, GRADED_2)


def graded_3(members: Sequence[Member]) -> list[float | None]:
    """One reward per member by `GRADED_3`; otherwise as `binary`."""
    return by_category(members, GRADED_3)


def by_category(members: Sequence[Member], values: Mapping[Category, float]) -> list[float | None]:
    """One reward per member from a map over all six categories."""
    return per_verdict(members, lambda verdict: values[verdict.category])
