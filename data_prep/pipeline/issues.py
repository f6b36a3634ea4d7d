"""Issues of a dataset: everything that was wrong or left out, for the report."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

MOST_NAMED = 3


class Kind(enum.StrEnum):
    """Kind of an issue."""

    BROKEN = "broken image"
    EMPTY_LABEL = "empty label"
    DUPLICATE_ID = "duplicate id"
    IN_TWO_FILES = "sample in two files"
    COUNT = "unexpected count"
    ABSTENTION = "label that declines to answer"
    IGNORED = "ignored files"
    """Only said: the user asked for it."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault of one sample, or of a split when `sample_id` is empty."""

    kind: Kind
    source: str
    file: str
    """Name of the file it would go into: ``train``, ``test``, …"""
    sample_id: str
    where: str
    """A path in the dataset or a split's name."""
    detail: str

    def as_json(self) -> dict[str, Any]:
        """Plain values for the report."""
        return asdict(self) | {"kind": self.kind.value}


def summary(problems: Sequence[Problem]) -> str:
    """One line with the number of problems of each kind and the first few of them."""
    counts = ", ".join(f"{count} x {kind}" for kind, count in by_kind(problems).items())
    named = "; ".join(f"{p.source} {p.where}: {p.detail}" for p in problems[:MOST_NAMED])
    return f"{counts}: {named}" + ("; …" if len(problems) > MOST_NAMED else "")


def by_kind(problems: Iterable[Problem]) -> dict[str, int]:
    """Number of problems of each kind."""
    return dict(Counter(problem.kind.value for problem in problems))
