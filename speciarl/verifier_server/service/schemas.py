"""Requests and responses, as the OpenAPI document shows them."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from speciarl.category import LABELS
from speciarl.verdict import Reason, Source
from speciarl.verifier_server.service.settings import NAME, RUN_CHARS

RunName = Annotated[str, Field(pattern=NAME, max_length=RUN_CHARS, examples=["cub200-seed42"])]

Label = Annotated[str, Field(json_schema_extra={"enum": list(LABELS)})]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Response(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PairItem(_Request):
    """One pair to be judged."""

    ground_truth: str = Field(examples=["golden-winged warbler"])
    """What is in the image."""
    prediction: str = Field(examples=["warbler"])
    """What the model said."""
    id: str | None = Field(default=None, max_length=200)
    """Given back with the result."""


class JudgeRequest(_Request):
    """A batch of pairs for one judge."""

    judge: str | None = Field(default=None, max_length=100)
    """Name of the judge; the service's default when not given."""
    run: RunName | None = None
    """Run under which the pairs are counted and logged; none when not given."""
    deadline_s: float | None = Field(default=None, gt=0, le=86_400)
    """Seconds after which the answer goes out; pairs without a verdict by then are unscorable(timeout)."""
    pairs: list[PairItem]
    """The pairs. The service's limits say how many."""


class VerdictResult(_Response):
    """A pair that was judged."""

    status: Literal["verdict"]
    category: Label
    """Its category."""
    margin: float | None
    """Log-probability of the label minus that of the runner-up, in nats; null where the judge gives none."""
    source: Source
    """Where the verdict came from."""
    probabilities: list[float] | None
    """Probability of each category, from wrong to more specific; null where the judge gives none."""
    id: str | None = None
    """The pair's id, where it had one."""


class UnscorableResult(_Response):
    """A pair without a verdict. It is neither a category nor a score of 0."""

    status: Literal["unscorable"]
    reason: Reason
    """Why, for programs."""
    detail: str
    """Why, for people."""
    id: str | None = None
    """The pair's id, where it had one."""


Result = Annotated[VerdictResult | UnscorableResult, Field(discriminator="status")]


class JudgeResponse(_Response):
    """The results, in the order of the pairs."""

    judge: str
    """The judge that was asked."""
    run: str | None
    """The run, where one was named."""
    results: list[Result]
    """One per pair."""
    judged: int
    """How many have a verdict."""
    unscorable: int
    """How many have none."""


class ClassifyRequest(BaseModel):
    """The request of the paper's release."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    ground_truths: list[str] = Field(examples=[["golden-winged warbler"]])
    """What is in the images."""
    predictions: list[str] = Field(examples=[["warbler"]])
    """What the model said, in the same order."""
    model: str | None = Field(default=None, max_length=500)
    """A judge's name, or a name in the service's aliases."""
    verifier_prompt: str | None = Field(default=None, max_length=500)
    """A prompt name in the service's aliases."""
    run_name: str | None = Field(default=None, max_length=500)
    """Run under which the pairs are counted and logged; characters that run names cannot have become dashes."""
    extra_info: Any = None
    """Anything; goes into the verdict log. A list with one entry per pair is spread over the pairs."""


class ClassifyResponse(_Response):
    """The label words, in the order of the pairs."""

    classifications: list[str]
    """One per pair."""


class ErrorBody(_Response):
    """What went wrong."""

    code: str
    """For programs; stable."""
    message: str
    """One line for people."""
    details: list[dict[str, Any]]
    """One entry per problem, where there are several."""


class ErrorResponse(_Response):
    """Every answer that is not a success."""

    error: ErrorBody


class JudgeInfo(_Response):
    """One judge of the service."""

    name: str
    state: Literal["starting", "ready", "failed", "stopped"]
    kind: str
    model: str | None
    revision: str | None
    prompt: str | None
    """Name of the prompt; null for a judge without one."""
    prompt_hash: str | None
    """Hash of the prompt's text."""
    decoding: str | None
    """How the judge decodes, once it is ready."""
    thinking: bool
    max_string_chars: int
    """Longest normalised text it judges."""
    endpoints: list[str]


class JudgesResponse(_Response):
    """The judges, and what clients may send."""

    judges: list[JudgeInfo]
    default_judge: str
    default_binary_judge: str
    aliases: list[dict[str, Any]]
    """Model and prompt names of the paper's clients, and the judges that answer to them."""
    limits: dict[str, float]


class ReadyResponse(_Response):
    """Whether all judges can be asked."""

    ready: bool
    judges: dict[str, str]
    """State of each judge."""


class RunInfo(_Response):
    """One run so far."""

    run: str
    pairs: int
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


class RunsResponse(_Response):
    """All runs, by name."""

    runs: list[RunInfo]


class LogRow(_Response):
    """One pair of a run, as the verdict log keeps it."""

    time: datetime
    judge: str
    model: str | None
    revision: str | None
    prompt: str | None
    prompt_hash: str | None
    decoding: str | None
    pair_id: str | None
    ground_truth: str
    prediction: str
    category: str | None
    reason: str | None
    detail: str | None
    margin: float | None
    probabilities: list[float] | None
    source: str | None
    extra_info: str | None
    """JSON text."""


class RowsResponse(_Response):
    """A page of a run's pairs, in the order in which they were judged."""

    run: str
    rows: list[LogRow]
    next: str | None
    """Cursor for `after`, to go on from here; the one that was sent when there are no rows."""
    more: bool
    """Whether there are more rows now."""
