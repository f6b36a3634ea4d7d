"""Schemas of requests and responses, as the OpenAPI document shows them.

Requests and short answers are these models. Answers with an entry per pair are written as plain data, for speed: there
the tests hold what is answered to the model.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from speciarl.category import LABELS
from speciarl.verdict import Reason, Source
from speciarl.verifier_server.service.config import NAME, RUN_CHARS, AliasConfig, LimitsConfig

Text = Annotated[str, Field(min_length=0)]
"""Text that can be sent on and logged: having a constraint, even this, makes pydantic refuse lone surrogates."""

RunName = Annotated[str, Field(pattern=NAME, max_length=RUN_CHARS, examples=["cub200-seed42"])]

Label = Annotated[str, Field(json_schema_extra={"enum": list(LABELS)})]

Probabilities = Annotated[list[float], Field(min_length=len(LABELS), max_length=len(LABELS))]

JudgeState = Literal["starting", "ready", "failed", "stopped"]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)


class _Response(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class PairItem(_Request):
    """One pair to be judged."""

    ground_truth: Text = Field(examples=["golden-winged warbler"])
    """What is in the image."""
    prediction: Text = Field(examples=["warbler"])
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
    pairs: list[Annotated[PairItem | Any, Field(union_mode="left_to_right")]]
    """The pairs; the service's limits say how many. One that is not of this form is unscorable(malformed), or
    unscorable(too_long), in its place, and the others are judged."""


class VerdictResult(_Response):
    """A pair that was judged."""

    status: Literal["verdict"]
    """Tells it from a pair without a verdict."""
    category: Label
    """Its category."""
    margin: float | None = Field(ge=0)
    """Log-probability of the label minus that of the runner-up, in nats; null where the judge gives none."""
    source: Source
    """Where the verdict came from."""
    probabilities: Probabilities | None
    """Probability of each category, from wrong to more specific; null where the judge gives none."""
    id: str | None = None
    """The pair's id, where it had one."""


class UnscorableResult(_Response):
    """A pair without a verdict. It is neither a category nor a score of 0."""

    status: Literal["unscorable"]
    """Tells it from a pair that was judged."""
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

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, use_attribute_docstrings=True)

    ground_truths: list[Text] = Field(examples=[["golden-winged warbler"]])
    """What is in the images."""
    predictions: list[Text] = Field(examples=[["warbler"]])
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

    classifications: list[Label]
    """One per pair."""


class BinaryResponse(_Response):
    """The two words of the service's settings, in the order of the pairs."""

    classifications: list[str] = Field(examples=[["correct", "wrong"]])
    """One per pair: `binary.right` (`correct` unless set) from the category `binary.least` upwards, below it
    `binary.wrong` (`wrong` unless set)."""


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
    """The error."""


class HealthResponse(_Response):
    """The process answers."""

    status: Literal["ok"]
    """Nothing else is ever said."""


class JudgeInfo(_Response):
    """One judge of the service."""

    name: str
    """By which requests name it."""
    state: JudgeState
    """It can be asked while it is ready."""
    kind: str
    """`vllm`, `openai` or `taxonomy`."""
    model: str | None
    """Name or directory of the model; null for a judge without one."""
    revision: str | None
    """The model's revision, where one is set."""
    prompt: str | None
    """Name of the prompt; null for a judge without one."""
    prompt_hash: str | None
    """Hash of the prompt's text."""
    decoding: str | None
    """How the judge decodes, once it is ready."""
    thinking: bool
    """Whether it reasons before the label."""
    max_string_chars: int
    """Longest normalised text it judges."""
    endpoints: list[str]
    """URLs of its servers, without user names and passwords."""


class JudgesResponse(_Response):
    """The judges, and what clients may send."""

    judges: list[JudgeInfo]
    """All of them, whatever their state."""
    default_judge: str
    """Judge of requests that name none."""
    default_binary_judge: str
    """The same for `/api/v1/classify/binary`."""
    aliases: list[AliasConfig]
    """Model and prompt names of the paper's clients, and the judges that answer to them."""
    limits: LimitsConfig
    """The service's limits."""


class ReadyResponse(_Response):
    """Whether all judges can be asked."""

    ready: bool
    """True when all of them are ready."""
    judges: dict[str, JudgeState]
    """State of each judge."""


class RunInfo(_Response):
    """One run so far."""

    run: str
    """Its name."""
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


class RunsResponse(_Response):
    """All runs, by name."""

    runs: list[RunInfo]
    """Sorted by name."""


class LogRow(_Response):
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


class RowsResponse(_Response):
    """A page of a run's pairs, in the order in which they were judged."""

    run: str
    """The run's name."""
    rows: list[LogRow]
    """The pairs."""
    next: str | None
    """Cursor for `after`, to go on from here; the one that was sent when there are no rows."""
    more: bool
    """Whether there are more rows now."""
