"""One rollout of a group, as a reward sees it."""

from dataclasses import dataclass
from typing import TypeAlias

from speciarl.verdict import Judgement


@dataclass(frozen=True, slots=True)
class Unparsable:
    """The response holds no answer, so there was nothing to judge."""


Member: TypeAlias = Judgement | Unparsable
