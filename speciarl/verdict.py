"""Verdict: the category of one pair by a verifier; `Unscorable` where no verdict could be had."""

import enum
import math
from dataclasses import dataclass
from typing import TypeAlias

from speciarl.category import Category


@dataclass(frozen=True, slots=True)
class Pair:
    """One ground truth and one prediction, as plain text (not yet normalised)."""

    ground_truth: str
    prediction: str


class Source(enum.StrEnum):
    """Where a verdict came from."""

    LIVE = "live"
    """A judge model was asked."""

    MEMORY = "memory"
    """The pair was judged before, or is being judged for another caller (single-flight), in this process."""

    STORE = "store"
    """The pair was judged before by the same judge, in any process, and its verdict kept in the verdict store."""

    SHORTCUT = "shortcut"
    """Decided without a judge: exact match or abstention."""

    TAXONOMY = "taxonomy"
    """Computed from a dataset's own hierarchy."""


class Reason(enum.StrEnum):
    """Why a pair has no verdict."""

    TIMEOUT = "timeout"
    """The deadline passed."""

    CONNECTION = "connection"
    """No endpoint could be reached, or the connection broke."""

    OVERLOADED = "overloaded"
    """Every attempt was turned away (HTTP 429 or 503)."""

    HTTP_ERROR = "http_error"
    """The endpoint refused the request or failed."""

    MALFORMED = "malformed"
    """The reply could not be read, or what a service was sent as a pair is none."""

    OFF_LABEL = "off_label"
    """The judge's reply is none of the labels."""

    TOO_LONG = "too_long"
    """The ground truth exceeds the configured length, or the pair what a service takes."""

    UNKNOWN_CONCEPT = "unknown_concept"
    """The taxonomy does not hold the ground truth."""

    CANCELLED = "cancelled"
    """The verifier was closed while the pair waited."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The category of one pair.

    Raises ValueError for a negative or non-finite margin and for probabilities that are not one per category.
    """

    category: Category
    margin: float | None
    """Log-probability of the chosen label's first token minus that of the runner-up, in nats, finite and >=
    0; a lower bound where the runner-up is below what the server reports. None when the judge gives none."""
    source: Source
    probabilities: tuple[float, ...] | None = None
    """Probability of each category in category order, shape (6,), sum 1. None when the judge gives none."""

    def __post_init__(self) -> None:
        if self.margin is not None and not (math.isfinite(self.margin) and self.margin >= 0):
            raise ValueError(f"margin must be finite and not negative, got {self.margin}")
        if self.probabilities is not None and len(self.probabilities) != len(Category):
            raise ValueError(f"expected {len(Category)} probabilities, got {len(self.probabilities)}")


@dataclass(frozen=True, slots=True)
class Unscorable:
    """The absence of a verdict, with its reason. Never a category and never a reward of 0."""

    reason: Reason
    detail: str = ""
    """One line for a person: what happened at the last attempt. Holds no secrets."""


Judgement: TypeAlias = Verdict | Unscorable
