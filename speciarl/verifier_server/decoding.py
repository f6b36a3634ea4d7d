"""How a category is asked for and read out of a reply: pure functions on plain data.

Three ways, from best to most general. FIRST_TOKEN needs a single prefill: the labels differ in their first
token, so the log-probabilities of those tokens already are the verdict. LABEL_CHOICE and JSON_ENUM
let the server constrain the whole label. FREE_TEXT hopes. The request fields are those of vLLM's chat API
(vllm.entrypoints.openai).
"""

import enum
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from speciarl.answer import normalise
from speciarl.category import Category
from speciarl.verdict import Judgement, Reason, Source, Unscorable, Verdict
from speciarl.verifier_server.scheme import SIX, Scheme
from speciarl.verifier_server.thought import answer_text, first_choice

TOP_LOGPROBS = 20
"""The most log-probabilities per token that vLLM reports unless told otherwise (`--max-logprobs`)."""

LABEL_TOKENS = 48
"""Room for the longest label, wrapped in JSON, under any tokenizer, single bytes included."""

_TOKEN_ID = "token_id:"


class Mode(str, enum.Enum):
    """How the judge's answer is decoded."""

    FIRST_TOKEN = "first_token"
    """Log-probabilities of exactly the labels' first tokens (vLLM's `logprob_token_ids`)."""

    FIRST_TOKEN_TOP = "first_token_top"
    """The same from the 20 most likely tokens, with generation confined to the labels' first tokens, for vLLM
    servers that do not know `logprob_token_ids`. A label outside the 20 is bounded, not valued."""

    LABEL_CHOICE = "label_choice"
    """vLLM's `structured_outputs: {choice}`."""

    JSON_ENUM = "json_enum"
    """OpenAI's `response_format: json_schema` with an enum."""

    FREE_TEXT = "free_text"
    """No constraint; the reply must be a label."""


@dataclass(frozen=True)
class Decoder:
    """One way to ask and to read. Picklable; its repr is stable and identifies the decoding."""

    mode: Mode
    first_tokens: tuple[int, ...] = ()
    """First token of each label in the scheme's order, for the FIRST_TOKEN modes."""
    max_tokens: int = LABEL_TOKENS
    """Length limit of the reply in the other modes, a thought included."""
    scheme: Scheme = SIX
    """The labels to choose from: the prompt's."""
    only: Category | None = None
    """The one category the server may choose, when a probe tests whether it obeys; None allows all."""

    def narrowed(self) -> list[tuple["Decoder", Category | None]]:
        """Decoders to test a server with, each with the only category it then may give (None: no such
        promise).

        A server that obeys the constraint says first one label, then another, whatever it thinks of the pair.
        """
        if self.mode in (Mode.FIRST_TOKEN, Mode.FREE_TEXT):
            return [(self, None)]  # a reply that can be read is proof enough
        best_and_worst = (self.scheme.categories[-1], self.scheme.categories[0])
        return [(replace(self, only=category), category) for category in best_and_worst]

    def fields(self) -> dict[str, Any]:
        """Request fields besides model and messages."""
        if self.mode is Mode.FIRST_TOKEN:
            return {
                "max_tokens": 1,
                "temperature": 0,
                "logprobs": True,
                "logprob_token_ids": list(self.first_tokens),
                "return_tokens_as_token_ids": True,
            }
        labels = list(self.scheme.labels) if self.only is None else [self.scheme.label(self.only)]
        if self.mode is Mode.FIRST_TOKEN_TOP:
            return {
                "max_tokens": 1,
                "temperature": 0,
                "logprobs": True,
                "top_logprobs": TOP_LOGPROBS,
                "allowed_token_ids": [self.first_tokens[self.scheme.labels.index(label)] for label in labels],
                "return_tokens_as_token_ids": True,
            }
        fields: dict[str, Any] = {"max_tokens": self.max_tokens, "temperature": 0}
        if self.mode is Mode.LABEL_CHOICE:
            fields["structured_outputs"] = {"choice": labels}
        elif self.mode is Mode.JSON_ENUM:
            schema = {
                "type": "object",
                "properties": {"category": {"type": "string", "enum": labels}},
                "required": ["category"],
                "additionalProperties": False,
            }
            fields["response_format"] = response_format(schema)
        return fields

    def read(self, reply: object) -> Judgement:
        """The judgement in a parsed chat completion; anything unexpected is Unscorable, never an error."""
        choice = first_choice(reply)
        if choice is None:
            return Unscorable(Reason.MALFORMED, "the reply is no chat completion with a choice")
        if self.mode in (Mode.FIRST_TOKEN, Mode.FIRST_TOKEN_TOP):
            return self._read_tokens(choice)
        text = answer_text(choice)
        return text if isinstance(text, Unscorable) else self._read_text(text)

    def _read_tokens(self, choice: Mapping[str, Any]) -> Judgement:
        reported = reported_logprobs(choice)
        if reported is None:
            return Unscorable(Reason.MALFORMED, "the reply has no log-probabilities by token id")
        chosen, logprobs = reported
        values = [logprobs.get(token) for token in self.first_tokens]
        if self.mode is Mode.FIRST_TOKEN:
            if any(value is None for value in values):
                return Unscorable(Reason.MALFORMED, "the reply lacks the log-probability of a label")
            return verdict_from_logprobs([value for value in values if value is not None], self.scheme)
        if chosen not in self.first_tokens:
            return Unscorable(Reason.OFF_LABEL, f"the judge began with token {chosen}, which begins no label")
        floor = min((value for token, value in logprobs.items() if token != chosen), default=None)
        return verdict_from_top(self.first_tokens.index(chosen), values, floor, self.scheme)

    def _read_text(self, content: str) -> Judgement:
        text = content
        if self.mode is Mode.JSON_ENUM:
            try:
                parsed = json.loads(content)
            except (ValueError, RecursionError):
                return Unscorable(Reason.MALFORMED, f"the reply is no JSON: {shorten(content)}")
            value = parsed.get("category") if isinstance(parsed, Mapping) else None
            if not isinstance(value, str):
                return Unscorable(Reason.MALFORMED, f"the reply has no category: {shorten(content)}")
            text = value
        return verdict_from_words(text, self.scheme)


def response_format(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON schema in the form in which OpenAI's API takes it."""
    return {"type": "json_schema", "json_schema": {"name": "judgement", "strict": True, "schema": schema}}


def verdict_from_words(text: str, scheme: Scheme) -> Judgement:
    """The verdict in a text that should be a label and nothing else."""
    label = normalise(text)
    if label not in scheme.labels:
        return Unscorable(Reason.OFF_LABEL, f"the judge said {shorten(text)}, which is no label")
    return Verdict(category=scheme.category(label), margin=None, source=Source.LIVE)


def verdict_from_logprobs(logprobs: Sequence[float], scheme: Scheme = SIX) -> Verdict:
    """The verdict from one log-probability per label, in the scheme's order. A tie goes to the worse one."""
    best = max(range(len(logprobs)), key=lambda index: logprobs[index])
    margin = logprobs[best] - max(value for index, value in enumerate(logprobs) if index != best)
    weights = [math.exp(value - logprobs[best]) for value in logprobs]
    total = sum(weights)
    return Verdict(
        category=scheme.categories[best],
        margin=margin,
        source=Source.LIVE,
        probabilities=scheme.spread([weight / total for weight in weights]),
    )


def verdict_from_top(
    chosen: int, logprobs: Sequence[float | None], floor: float | None, scheme: Scheme = SIX
) -> Verdict:
    """The verdict for the label of index `chosen` when only the most likely tokens were reported.

    `logprobs` has one entry per label, None where unreported; such a label lies at or below `floor`, the
    least reported value. With the runner-up unreported the margin is a lower bound, and probabilities are
    left out.
    """
    known = [value for value in logprobs if value is not None]
    if len(known) == len(logprobs):
        full = verdict_from_logprobs(known, scheme)
        if full.category == scheme.categories[chosen]:
            return full
    best = logprobs[chosen]
    others = [value for index, value in enumerate(logprobs) if index != chosen and value is not None]
    runner_up = max(others, default=floor)
    margin = None if best is None or runner_up is None else max(best - runner_up, 0.0)
    return Verdict(category=scheme.categories[chosen], margin=margin, source=Source.LIVE)


def label_mass(reply: object, first_tokens: Sequence[int]) -> float | None:
    """Total probability of the labels' first tokens in a FIRST_TOKEN reply, in [0, 1]; None when it has none.

    Near 1 for a judge that means to answer with a label; small when it would rather say something else.
    """
    choice = first_choice(reply)
    reported = reported_logprobs(choice) if choice is not None else None
    if reported is None:
        return None
    return min(sum(math.exp(reported[1][token]) for token in first_tokens if token in reported[1]), 1.0)


def reported_logprobs(choice: Mapping[str, Any]) -> tuple[int, dict[int, float]] | None:
    """The generated token's id and all reported log-probabilities of its position, by token id; None if
    unreadable."""
    try:
        position = choice["logprobs"]["content"][0]
        chosen = _token_id(position["token"])
        logprobs = {_token_id(entry["token"]): float(entry["logprob"]) for entry in position["top_logprobs"]}
        logprobs.setdefault(chosen, float(position["logprob"]))
    except (KeyError, IndexError, TypeError, ValueError, OverflowError):
        return None
    return (chosen, logprobs) if all(map(math.isfinite, logprobs.values())) else None


def first_difference(prompt: Sequence[int], continued: Sequence[int]) -> int | None:
    """The first token of a text that continues a prompt; None when the prompt's tokens are no prefix or
    nothing follows."""
    if len(continued) <= len(prompt) or list(continued[: len(prompt)]) != list(prompt):
        return None
    return continued[len(prompt)]


def clashing_labels(first_tokens: Sequence[int], labels: Sequence[str] = SIX.labels) -> list[tuple[str, ...]]:
    """Groups of labels that begin with the same token; empty when first-token judging is possible."""
    by_token: dict[int, list[str]] = {}
    for label, token in zip(labels, first_tokens, strict=True):
        by_token.setdefault(token, []).append(label)
    return [tuple(group) for group in by_token.values() if len(group) > 1]


def shorten(text: str, limit: int = 120) -> str:
    """The text quoted on one line, cut to `limit` characters."""
    flat = " ".join(text.split())
    return repr(flat if len(flat) <= limit else flat[: limit - 1] + "…")


def _token_id(text: object) -> int:
    if not (isinstance(text, str) and text.startswith(_TOKEN_ID)):
        raise ValueError(f"{text!r} is no token id")
    return int(text[len(_TOKEN_ID) :])
