"""Schemas of requests and responses, as the OpenAPI document shows them.

Requests and short responses are these models. Responses with an entry per pair are written as plain data, for speed:
there the tests validate what is answered against the model.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

from speciarl.category import LABELS
from speciarl.verdict import Reason, Source
from speciarl.verifier_server.service.config import NAME, RUN_CHARS, AliasConfig, LimitsConfig

Text = Annotated[str, Field(min_length=0)]
"""Text that can be sent on and logged: any constraint, even this one, makes pydantic refuse lone surrogates."""

RunName = Annotated[str, Field(pattern=NAME, max_length=RUN_CHARS, examples=["cub200-seed42"])]

Label = Annotated[str, Field(json_schema_extra={"enum": list(LABELS)})]

Probabilities = Annotated[list[float], Field(min_length=len(LABELS), max_length=len(LABELS))]


def _without_default(schema: dict[str, Any]) -> None:
    del schema["default"]


GivenId = Annotated[str | SkipJsonSchema[None], Field(json_schema_extra=_without_default)]
"""Id that is left out, and never null, where there is none."""

JudgeState = Literal["starting", "ready", "failed", "stopped"]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)


class Answer(BaseModel):
    """Base of all responses."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class PairItem(_Request):
    """One pair to be judged."""

    ground_truth: Text = Field(examples=["golden-winged warbler"])
    """What is in the image."""
    prediction: Text = Field(examples=["warbler"])
    """What the model said."""
    id: str | None = Field(default=None, max_length=200)
    """Returned with the result."""


class JudgeRequest(_Request):
    """A batch of pairs for one judge."""

    judge: str | None = Field(default=None, max_length=100)
    """Name of the judge; the service's default when not given."""
    run: RunName | None = None
    """Run under which the pairs are counted and logged; none when not given."""
    deadline_s: float | None = Field(default=None, gt=0, le=86_400)
    """Seconds after which the answer is sent; pairs without a verdict by then are unscorable(timeout)."""
    pairs: list[Annotated[PairItem | Any, Field(union_mode="left_to_right")]]
    """The pairs; the service's limits say how many. One that is not of this form is unscorable(malformed), or
    unscorable(too_long), in its place, and the others are judged."""


class VerdictResult(Answer):
    """A pair that was judged."""

    status: Literal["verdict"]
    """Distinguishes it from a pair without a verdict."""
    category: Label
    """Its category."""
    margin: float | None = Field(ge=0)
    """Log-probability of the label minus that of the runner-up, in nats; null where the judge gives none."""
    source: Source
    """Where the verdict came from."""
    probabilities: Probabilities | None
    """Probability of each category, from wrong to more specific; null where the judge gives none."""
    id: GivenId = None
    """The pair's id; absent where it had none."""


class UnscorableResult(Answer):
    """A pair without a verdict. It is neither a category nor a score of 0."""

    status: Literal["unscorable"]
    """Distinguishes it from a pair that was judged."""
    reason: Reason
    """Why there is no verdict, for programs."""
    detail: str
    """Why there is no verdict, for people."""
    id: GivenId = None
    """The pair's id; absent where it had none."""


Result = Annotated[VerdictResult | UnscorableResult, Field(discriminator="status")]


class JudgeResponse(Answer):
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


class ClassifyResponse(Answer):
    """The label words, in the order of the pairs."""

    classifications: list[Label]
    """One per pair."""


class BinaryResponse(Answer):
    """The two words of the service's settings, in the order of the pairs."""

    classifications: list[str] = Field(examples=[["correct", "wrong"]])
    """One per pair: `binary.right` (`correct` unless set) from the category `binary.least` upwards, below it
    `binary.wrong` (`wrong` unless set)."""


class ErrorBody(Answer):
    """Description of a failure."""

    code: str
    """Stable code for programs."""
    message: str
    """One line for people."""
    details: list[dict[str, Any]]
    """One entry per problem, where there are several."""


class ErrorResponse(Answer):
    """Response of every request that fails."""

    error: ErrorBody
    """The error."""


class HealthResponse(Answer):
    """Liveness: the process answers."""

    status: Literal["ok"]
    """Always `ok`."""


class JudgeInfo(Answer):
    """One judge of the service."""

    name: str
    """Name that requests give."""
    state: JudgeState
    """State of the judge, which can be asked while it is `ready`."""
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


class JudgesResponse(Answer):
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


class ReadyResponse(Answer):
    """Readiness: whether all judges can be asked."""

    ready: bool
    """True when all of them are ready."""
    judges: dict[str, JudgeState]
    """State of each judge."""
