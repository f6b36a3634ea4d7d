"""Schemas of the responses in the wire format of the paper's release, but for those that judge."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import ConfigDict, Field

from speciarl.verifier_server.service.schemas import Answer


class ModelsResponse(Answer):
    """The model names that clients may send."""

    available_models: list[str]
    """Names under `judges`, and those of the aliases."""
    default_model: str | None
    """The judge that is asked where a client names none."""


class PromptsResponse(Answer):
    """The prompt names that clients may send."""

    available_prompts: list[str]
    """Names in the aliases."""
    default_prompt: str | None
    """The prompt of the judge that is asked where a client names none; null for one without a prompt."""


class SchemaResponse(Answer):
    """How a request that judges is made."""

    endpoints: list[str]
    """Method and path of each route that judges."""
    required_fields: dict[str, dict[str, Any]]
    """Type, description and example by name."""
    optional_fields: dict[str, dict[str, Any]]
    """Type and description by name."""
    examples: dict[str, dict[str, Any]]
    """A request for each route."""


class RunState(StrEnum):
    """State of a run's log."""

    PROCESSING = "processing"
    """Rows wait to be written."""
    COMPLETED = "completed"
    """All of its rows are written."""
    IDLE = "idle"
    """It has none."""


class RunStatus(Answer):
    """State of a run; one that is unknown is idle."""

    run_name: str
    """Its name."""
    status: RunState
    """Whether rows wait."""
    queue_pending_count: int
    """Rows that wait to be written."""
    total_processed: int
    """Pairs so far."""
    last_activity: datetime | None
    """When its last pair was judged."""


class Occurrence(Answer):
    """One time at which a pair was judged."""

    timestamp: datetime
    """When."""
    extra_info: Any
    """What the client sent with it."""


class LoggedPair(Answer):
    """A pair of a run with its verdict, and how often it came up. With `fields`, only those that were asked for."""

    model_config = ConfigDict(populate_by_name=True)

    id: str = Field(alias="_id")
    """Made from the pair, the run, the model and the prompt; the same in every page."""
    ground_truth: str | None = None
    """As it was sent."""
    prediction: str | None = None
    """As it was sent."""
    run_name: str | None = None
    """The run's name."""
    model: str | None = None
    """The judge's model, or the judge's name where it has none."""
    prompt: str | None = None
    """Name of the judge's prompt."""
    classification_result: str | None = None
    """The label word, or `error` for a pair without a verdict."""
    count: int | None = None
    """How often it came up."""
    first_seen: datetime | None = None
    """When it was judged first."""
    last_seen: datetime | None = None
    """When it was judged last."""
    occurrences: list[Occurrence] | None = None
    """Every time."""


class RunStatistics(Answer):
    """Statistics of a run, over all times at which its pairs were judged."""

    classification_distribution: dict[str, int]
    """How often each label word came up, and `error`."""
    total_classifications: int
    """How often any did."""
    success_rate: float
    """Percentage of those with a verdict."""
    models_used: list[str]
    """Models, sorted."""
    time_range: dict[str, datetime | None]
    """`first_seen` and `last_seen`."""


class RunResults(Answer):
    """A page of a run's pairs, the one judged last first."""

    run_name: str
    """Its name."""
    total_count: int
    """Different pairs of the run."""
    returned_count: int
    """Pairs in this page."""
    offset: int
    """As asked for."""
    limit: int
    """As asked for."""
    has_more: bool
    """Whether there are pairs behind this page."""
    stats: RunStatistics | None
    """Where `include_stats` asked for them and there is any pair."""
    results: list[LoggedPair]
    """The pairs."""
