"""Decoding: how a category is asked for and read out of a reply; pure functions on plain data.

From best to most general. The FIRST_TOKEN ways need a single prefill: the labels differ in their first token, so the
log-probabilities of those tokens already are the verdict. LABEL_CHOICE and JSON_ENUM let the server constrain the whole
label. FREE_TEXT hopes. The request fields are those of vLLM's chat API (vllm.entrypoints.openai).
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
from speciarl.verifier_server.judge.reasoning import answer_text, first_choice

TOP_LOGPROBS = 20
"""The most log-probabilities per token that vLLM reports unless told otherwise (`--max-logprobs`)."""

WIDE_TOP_LOGPROBS = 256
"""What a server of somebody else's is asked for first where labels are looked for among the likeliest tokens."""

LABEL_TOKENS = 48
"""Room for the longest label, wrapped in JSON, under any tokenizer, single bytes included."""


class Mode(enum.StrEnum):
    """How the judge's answer is decoded."""

    FIRST_TOKEN = "first_token"
    """Log-probabilities of exactly the labels' first tokens (vLLM's `logprob_token_ids`)."""

    FIRST_TOKEN_BIASED = "first_token_biased"
    """The same where log-probabilities are those after processing (`--logprobs-mode processed_logprobs`), as on servers
    that we start: `logit_bias` lifts the labels' first tokens, so that the 20 likeliest tokens hold all labels, with
    their exact proportions, and what is missing to 1 tells how likely any label was before. For vLLM that does not know
    `logprob_token_ids` in chats (0.24)."""

    FIRST_TOKEN_TOP = "first_token_top"
    """From the most likely tokens as the model has them, with generation confined to the labels' first tokens, for any
    other vLLM server. A label that is not among them is bounded, not valued."""

    LABEL_CHOICE = "label_choice"
    """vLLM's `structured_outputs: {choice}`."""

    JSON_ENUM = "json_enum"
    """OpenAI's `response_format: json_schema` with an enum."""

    FREE_TEXT = "free_text"
    """No constraint; the reply must be a label."""

    @property
    def by_first_token(self) -> bool:
        """Whether one token is asked for, and log-probabilities."""
        return self in (Mode.FIRST_TOKEN, Mode.FIRST_TOKEN_BIASED, Mode.FIRST_TOKEN_TOP)

    @property
    def exact(self) -> bool:
        """Whether every verdict has the probabilities of all labels."""
        return self in (Mode.FIRST_TOKEN, Mode.FIRST_TOKEN_BIASED)


@dataclass(frozen=True)
class Decoder:
    """One way to ask and to read. Picklable."""

    mode: Mode
    first_tokens: tuple[int, ...] = ()
    """First token of each label in the scheme's order, for the FIRST_TOKEN modes."""
    max_tokens: int = LABEL_TOKENS
    """Length limit of the reply in the other modes, a thought included."""
    scheme: Scheme = SIX
    """The labels to choose from: the prompt's."""
    only: Category | None = None
    """The one category the server may choose, when a probe tests whether it obeys; None allows all."""
    top: int = TOP_LOGPROBS
    """Log-probabilities to ask for, where the likeliest tokens are asked for."""
    least_mass: float = 0.0
    """Probability, in [0, 1], that the labels' first tokens must have together; with less there is no verdict. For the
    FIRST_TOKEN modes."""

    @property
    def identity(self) -> str:
        """All of it that decides what a judge is taken to say; what the request holds anyway is left out.

        Part of the key of every stored verdict: another text, and stores are never found again. It is written out in
        the form that it had when stores began, so that classes and modules may be renamed.
        """
        text = (
            f"Decoder(mode=<Mode.{self.mode.name}: '{self.mode.value}'>, first_tokens={self.first_tokens!r}, "
            f"max_tokens={self.max_tokens}, scheme={self.scheme.identity}, only=None)"
        )
        return f"{text}, least_mass={self.least_mass!r}" if self.mode.by_first_token else text

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
        """The judgement in a parsed chat completion; anything unexpected is Unscorable, never an error."""
        choice = first_choice(reply)
        if choice is None:
            return Unscorable(Reason.MALFORMED, "the reply is no chat completion with a choice")
        if self.mode.by_first_token:
            return self._read_tokens(choice)
        text = answer_text(choice)
        return text if isinstance(text, Unscorable) else self._read_text(text)

    def mass(self, reply: object) -> float | None:
        """Total probability of the labels' first tokens in a reply to a FIRST_TOKEN mode, in [0, 1]; None when it does
        not say. In FIRST_TOKEN_TOP it is at least that much."""
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
        # A model's own generation settings may hold a penalty, which would act on labels, as the rubric has them all.
        fields |= {"top_logprobs": self.top, "repetition_penalty": 1}
        if self.mode is Mode.FIRST_TOKEN_TOP:
            return fields | {"allowed_token_ids": list(tokens)}
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
            least = min(logprobs.values())  # of a label that is so unlikely as to be crowded out
            return verdict_from_logprobs([least if value is None else value for value in values], self.scheme)
        floor = min((value for token, value in logprobs.items() if token != chosen), default=None)
        return verdict_from_top(self.first_tokens.index(chosen), values, floor, self.scheme)

    def _read_narrowed(self, chosen: int, logprobs: Mapping[int, float]) -> Judgement:
        """The category of the one label that was forced, if the log-probabilities show that it was: it is certain."""
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
    """A JSON schema in the form in which OpenAI's API takes it."""
    return {"type": "json_schema", "json_schema": {"name": "judgement", "strict": True, "schema": schema}}


def verdict_from_words(text: str, scheme: Scheme) -> Judgement:
    """The verdict in a text that should be a label and nothing else."""
    label = normalise(text)
    if label not in scheme.labels:
        return Unscorable(Reason.OFF_LABEL, f"the judge said {shorten(text)}, which is no label")
    return Verdict(category=scheme.category(label), margin=None, source=Source.LIVE)
