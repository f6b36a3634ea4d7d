"""One thing to be named: where it sits in the hierarchy and how familiar the laptop policy is with it."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Stratum(enum.StrEnum):
    """How well the miniature policy is taught a concept during pre-training."""

    KNOWN = "known"
    PARTIAL = "partial"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Fact:
    """A row of the emoji taxonomy: code points such as ``("1F436",)`` and normalised label strings."""

    codepoints: tuple[str, ...]
    group: str
    subgroup: str
    name: str
    aliases: tuple[str, ...]


@dataclass(frozen=True)
class Concept:
    """A selected fact with its position in the concept list, its domain and its familiarity stratum."""

    index: int
    fact: Fact
    domain: str
    stratum: Stratum

    @property
    def name(self) -> str:
        return self.fact.name

    @property
    def group(self) -> str:
        return self.fact.group

    @property
    def subgroup(self) -> str:
        return self.fact.subgroup

    @property
    def label_path(self) -> tuple[str, str, str]:
        """Group, subgroup and name: from the broadest label to the finest."""
        return (self.fact.group, self.fact.subgroup, self.fact.name)
