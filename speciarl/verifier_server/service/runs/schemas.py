"""Schemas of the responses of the run routes."""

from datetime import datetime

from pydantic import Field

from speciarl.verdict import Reason, Source
from speciarl.verifier_server.service.schemas import Answer, Label, Probabilities


class RunInfo(Answer):
    """Statistics of one run so far."""

    run: str
    """Name of the run."""
    pairs: int
    """Pairs so far, with and without a verdict."""
    first: datetime | None
    """When its first pair was judged."""
    last: datetime | None
    """When its last pair was judged."""
    judges: dict[str, int]
    """Pairs by judge."""
    categories: dict[str, int]
    """Verdicts by category, all six."""
    sources: dict[str, int]
    """Verdicts by source."""
    unscorable: dict[str, int]
    """Pairs without a verdict, by reason."""
    category_rates: dict[str, float] | None
    """Share of each category among the verdicts; null without any."""
    logged: bool
    """Whether its pairs are kept in the verdict log."""


class RunsResponse(Answer):
    """All runs, by name."""

    runs: list[RunInfo]
    """Sorted by name."""


class LogRow(Answer):
    """One pair of a run, as the verdict log keeps it."""

    time: datetime
    """When it was judged."""
    judge: str
    """Name of the judge."""
    model: str | None
    """The judge's model; null for a judge without one."""
    revision: str | None
    """The model's revision, where one is set."""
    prompt: str | None
    """Name of the judge's prompt."""
    prompt_hash: str | None
    """Hash of the prompt's text."""
    decoding: str | None
    """How the judge decoded."""
    pair_id: str | None
    """The pair's `id`, where it had one."""
    ground_truth: str
    """As it was sent; empty where that was no text."""
    prediction: str
    """As it was sent; empty where that was no text."""
    category: Label | None
    """Its category; null without a verdict."""
    reason: Reason | None
    """Why there is no verdict, for programs; null with one."""
    detail: str | None
    """Why there is no verdict, for people; null with one."""
    margin: float | None = Field(ge=0)
    """As in the verdict."""
    probabilities: Probabilities | None
    """As in the verdict."""
    source: Source | None
    """Where the verdict came from; null without one."""
    extra_info: str | None
    """JSON text."""


class RowsResponse(Answer):
    """A page of a run's pairs, in the order in which they were judged."""

    run: str
    """The run's name."""
    rows: list[LogRow]
    """The pairs."""
    next: str | None
    """Cursor for `after`, to go on from here; the one that was sent when there are no rows."""
    more: bool
    """Whether there are more rows now."""
