"""Finding: what a check found, and the remedy."""

import enum
from dataclasses import dataclass


class Level(enum.StrEnum):
    """How much a finding matters."""

    OK = "ok"
    WARNING = "warning"
    """Runs may be slow, or fail in some configurations."""
    PROBLEM = "problem"
    """Runs will fail."""


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    check: str
    level: Level
    detail: str
    """What was found, with figures."""
    remedy: str = ""
    """What to do about it; empty if all is well."""


def ok(check: str, detail: str) -> Finding:
    """All is well."""
    return Finding(check, Level.OK, detail)


def warning(check: str, detail: str, remedy: str) -> Finding:
    """Something that not every run needs is amiss."""
    return Finding(check, Level.WARNING, detail, remedy)


def problem(check: str, detail: str, remedy: str) -> Finding:
    """Something that every run needs is amiss."""
    return Finding(check, Level.PROBLEM, detail, remedy)
