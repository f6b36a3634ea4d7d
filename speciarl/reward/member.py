"""Group member: one rollout as a reward function sees it: a verdict, unscorable, or unparsable."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from speciarl.verdict import Judgement, Verdict

UNPARSABLE_REWARD = -1.0
"""Reward of a response without an answer (reference implementation)."""


@dataclass(frozen=True, slots=True)
class Unparsable:
    """A response without an answer, so without anything to judge."""


Member: TypeAlias = Judgement | Unparsable


def per_verdict(members: Sequence[Member], value: Callable[[Verdict], float]) -> list[float | None]:
    """One reward per member, in their order: `value` of a verdict, -1 for an unparsable response, and None for an
    unscorable one, which is no reward at all: it must be left out of every mean and baseline."""
    return [_reward(member, value) for member in members]


def _reward(member: Member, value: Callable[[Verdict], float]) -> float | None:
    if isinstance(member, Unparsable):
        return UNPARSABLE_REWARD
    return value(member) if isinstance(member, Verdict) else None
