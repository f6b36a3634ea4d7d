"""Decoding: asks for a category and reads it from the reply; pure functions on plain data.

From best to most general. The FIRST_TOKEN modes need a single prefill: the labels differ in their first token, so the
log-probabilities of those tokens already are the verdict. LABEL_CHOICE and JSON_ENUM are constrained decoding of the
whole label. FREE_TEXT has no constraint. The request fields are those of vLLM's chat API (vllm.entrypoints.openai).
"""

import enum
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from speciarl.answer import normalise
from speciarl.category import Category
from speciarl.utils.text import shorten
from speciarl.verdict import Judgement, Reason, Source, Unscorable, Verdict
from speciarl.verifier_server.judge.first_token import (
    BIAS,
    FORCE,
    biased_mass,
    label_mass,
    reported_logprobs,
    verdict_from_logprobs,
    verdict_from_top,
)
from speciarl.verifier_server.judge.labels import SIX, Scheme
from speciarl.verifier_server.judge.reasoning import answer_text, describe_no_choice, first_choice

TOP_LOGPROBS = 20
"""The most log-probabilities per token that vLLM reports unless told otherwise (`--max-logprobs`)."""

WIDE_TOP_LOGPROBS = 256
"""Log-probabilities that FIRST_TOKEN_TOP asks for first, as a server that we did not start may report more."""

LABEL_TOKENS = 48
"""Token limit for the longest label, wrapped in JSON, under any tokenizer, even with one token per byte."""


class Mode(enum.StrEnum):
    """Decoding mode of the judge's reply."""

    FIRST_TOKEN = "first_token"
    """Log-probabilities of exactly the labels' first tokens (vLLM's `logprob_token_ids`)."""

    FIRST_TOKEN_BIASED = "first_token_biased"
    """The same where log-probabilities are those after processing (`--logprobs-mode processed_logprobs`), as on servers
    that we start: `logit_bias` raises the labels' first tokens, so that the 20 likeliest tokens hold all labels, in
    their exact proportions, and what is missing to 1 gives the probability of any label before the bias. For vLLM that
    does not know `logprob_token_ids` in chats (0.24)."""

    FIRST_TOKEN_TOP = "first_token_top"
    """Raw log-probabilities of the likeliest tokens, with generation constrained to the labels' first tokens, for any
    other vLLM server. Of a label that is not among them only an upper bound is known."""

    LABEL_CHOICE = "label_choice"
    """vLLM's `structured_outputs: {choice}`."""

    JSON_ENUM = "json_enum"
    """OpenAI's `response_format: json_schema` with an enum."""

    FREE_TEXT = "free_text"
    """No constraint; the reply must be a label."""

    @property
    def by_first_token(self) -> bool:
        """Whether the verdict is read off the log-probabilities of one token."""
        return self in (Mode.FIRST_TOKEN, Mode.FIRST_TOKEN_BIASED, Mode.FIRST_TOKEN_TOP)

    @property
    def exact(self) -> bool:
        """Whether every verdict has the probabilities of all labels."""
        return self in (Mode.FIRST_TOKEN, Mode.FIRST_TOKEN_BIASED)


@dataclass(frozen=True)
class Decoder:
    """One way to ask for a verdict and to read it. Picklable."""

    mode: Mode
    first_tokens: tuple[int, ...] = ()
    """First token of each label in the scheme's order, for the FIRST_TOKEN modes."""
    max_tokens: int = LABEL_TOKENS
    """Length limit of the reply in the other modes, reasoning included, in tokens."""
    scheme: Scheme = SIX
    """The label set to choose from: the prompt's."""
    only: Category | None = None
    """The only category the server may choose, when the probe tests whether it obeys; None allows all."""
    top: int = TOP_LOGPROBS
    """Log-probabilities to ask for, where the likeliest tokens are asked for."""
    least_mass: float = 0.0
    """Least total probability of the labels' first tokens, in [0, 1]; below it there is no verdict. For the FIRST_TOKEN
    modes."""

    @property
    def identity(self) -> str:
        """Text of all fields that decide how a reply is read; what the request holds anyway is left out.

        Part of the key of every stored verdict: with another text, stored verdicts are never found again. It is written
        out in its first form, so that classes and modules may be renamed.
        """
        text = (
            f"Decoder(mode=<Mode.{self.mode.name}: '{self.mode.value}'>, first_tokens={self.first_tokens!r}, "
            f"max_tokens={self.max_tokens}, scheme={self.scheme.identity}, only=None)"
        )
        return f"{text}, least_mass={self.least_mass!r}" if self.mode.by_first_token else text

    def narrowed(self) -> list[tuple["Decoder", Category | None]]:
        """Decoders for the probe, each with the only category that the server may then choose (None: any).

        A server that obeys the constraint gives first one label, then another, whatever its judge thinks of the pair.
        """
        if self.mode in (Mode.FIRST_TOKEN, Mode.FREE_TEXT):
            return [(self, None)]  # a reply that can be read is proof enough
        best_and_worst = (self.scheme.categories[-1], self.scheme.categories[0])
        return [(replace(self, only=category), category) for category in best_and_worst]

    def fields(self) -> dict[str, Any]:
        """Request fields besides model and messages."""
        labels = list(self.scheme.labels) if self.only is None else [self.scheme.label(self.only)]
        if self.mode.by_first_token:
            return self._token_fields([self.first_tokens[self.scheme.labels.index(label)] for label in labels])
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
        """The judgement in a parsed chat completion; Unscorable for anything unexpected, never an error."""
        choice = first_choice(reply)
        if choice is None:
            return Unscorable(Reason.MALFORMED, describe_no_choice(reply))
        if self.mode.by_first_token:
            return self._read_tokens(choice)
        text = answer_text(choice, thinks=self.max_tokens != LABEL_TOKENS)
        return text if isinstance(text, Unscorable) else self._read_text(text)

    def mass(self, reply: object) -> float | None:
        """Total probability of the labels' first tokens in a reply to a FIRST_TOKEN mode, in [0, 1]; None when not
        reported. A lower bound in FIRST_TOKEN_TOP."""
        choice = first_choice(reply)
        reported = reported_logprobs(choice) if choice is not None else None
        return None if reported is None else self._mass(reported[1])

    def _mass(self, logprobs: Mapping[int, float]) -> float:
        if self.mode is not Mode.FIRST_TOKEN_BIASED:
            return label_mass(logprobs, self.first_tokens)
        return biased_mass(logprobs, self.first_tokens)

    def _token_fields(self, tokens: Sequence[int]) -> dict[str, Any]:
        fields: dict[str, Any] = {"max_tokens": 1, "temperature": 0, "logprobs": True}
        fields |= {"return_tokens_as_token_ids": True}
        if self.mode is Mode.FIRST_TOKEN:
            return fields | {"logprob_token_ids": list(self.first_tokens)}
        # A repetition penalty in the model's own generation settings would act on the labels: the rubric has them all.
        fields |= {"top_logprobs": self.top, "repetition_penalty": 1}
        if self.mode is Mode.FIRST_TOKEN_TOP:
            return fields | {"allowed_token_ids": list(tokens)}
        # An equal bias keeps the labels' proportions; the probe forces a single label instead.
        return fields | {"logit_bias": {str(token): BIAS if self.only is None else FORCE for token in tokens}}

    def _read_tokens(self, choice: Mapping[str, Any]) -> Judgement:
        reported = reported_logprobs(choice)
        if reported is None:
            return Unscorable(Reason.MALFORMED, "the reply has no log-probabilities by token id")
        chosen, logprobs = reported
        values = [logprobs.get(token) for token in self.first_tokens]
        known = [value for value in values if value is not None]
        if self.mode is Mode.FIRST_TOKEN and len(known) < len(values):
            return Unscorable(Reason.MALFORMED, "the reply lacks the log-probability of a label")
        if self.mode is not Mode.FIRST_TOKEN and chosen not in self.first_tokens:
            return Unscorable(Reason.OFF_LABEL, f"the judge began with token {chosen}, which begins no label")
        if self.mode is Mode.FIRST_TOKEN_BIASED and self.only is not None:
            return self._read_narrowed(chosen, logprobs)
        mass = self._mass(logprobs)
        if mass < self.least_mass:
            return Unscorable(
                Reason.OFF_LABEL,
                f"the judge would begin with a label with probability {mass:.2g} only, less than "
                f"min_label_mass={self.least_mass:g}",
            )
        if self.mode.exact:
            least = min(logprobs.values())  # upper bound for an unlikely label, crowded out of the list
            return verdict_from_logprobs([least if value is None else value for value in values], self.scheme)
        floor = min((value for token, value in logprobs.items() if token != chosen), default=None)
        return verdict_from_top(self.first_tokens.index(chosen), values, floor, self.scheme)

    def _read_narrowed(self, chosen: int, logprobs: Mapping[int, float]) -> Judgement:
        """The category of the one forced label; malformed if the log-probabilities do not show it as almost certain."""
        if logprobs[chosen] < -0.01:
            return Unscorable(Reason.MALFORMED, "the log-probabilities do not show the bias that was asked for")
        category = self.scheme.categories[self.first_tokens.index(chosen)]
        return Verdict(category=category, margin=None, source=Source.LIVE)

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
    """A JSON schema in the form that OpenAI's API takes."""
    return {"type": "json_schema", "json_schema": {"name": "judgement", "strict": True, "schema": schema}}


def verdict_from_words(text: str, scheme: Scheme) -> Judgement:
    """The verdict in a text that must be a label and nothing else; Unscorable(off_label) otherwise."""
    label = normalise(text)
    if label not in scheme.labels:
        return Unscorable(Reason.OFF_LABEL, f"the judge said {shorten(text)}, which is no label")
    return Verdict(category=scheme.category(label), margin=None, source=Source.LIVE)
