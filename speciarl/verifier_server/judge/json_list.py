"""JSON list of verdicts: asks about several pairs in one request, and reads the reply pair by pair."""

import enum
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from speciarl.category import Category
from speciarl.errors import ConfigError
from speciarl.utils.text import shorten
from speciarl.verdict import Judgement, Reason, Unscorable
from speciarl.verifier_server.config import VerifierConfig
from speciarl.verifier_server.judge.decoding import response_format, verdict_from_words
from speciarl.verifier_server.judge.labels import SIX, Scheme
from speciarl.verifier_server.judge.prompt import Prompt, pair_ids
from speciarl.verifier_server.judge.reasoning import answer_text, describe_no_choice, first_choice

ENTRY_TOKENS = 64
"""Token limit for one pair's id and label in JSON under any tokenizer, line breaks included."""

FRAME_TOKENS = 32
"""Token limit for the JSON around the entries."""

LIST_KEY = "verdicts"
"""Key of the list in the reply. Strict schemas of hosted APIs want an object at the root, not an array."""

_FENCE = re.compile(r"^```(?:json)?\s*\n(.*?)\n?\s*```$", re.DOTALL)


class ManyMode(enum.StrEnum):
    """Decoding mode of a reply about several pairs."""

    STRUCTURED = "many_structured"
    """vLLM's `structured_outputs: {regex}`: everything but the labels is fixed, ids and white space included. Under a
    JSON schema some judges write white space up to the length limit."""

    JSON = "many_json"
    """OpenAI's `response_format: json_schema`."""

    TEXT = "many_text"
    """No constraint; the reply must be such JSON all the same."""


@dataclass(frozen=True)
class ManyDecoder:
    """One way to ask about several pairs and to read the reply. Picklable."""

    mode: ManyMode
    scheme: Scheme = SIX
    """The label set to choose from: the prompt's."""
    thought_tokens: int = 0
    """Token limit of the reasoning before the answer, for the whole request."""
    only: Category | None = None
    """The only category the server may choose, when the probe tests whether it obeys; None allows all."""

    @property
    def identity(self) -> str:
        """See `Decoder.identity`."""
        return (
            f"ManyDecoder(mode=<ManyMode.{self.mode.name}: '{self.mode.value}'>, scheme={self.scheme.identity}, "
            f"thought_tokens={self.thought_tokens}, only=None)"
        )

    def narrowed(self) -> list[tuple["ManyDecoder", Category | None]]:
        """See `Decoder.narrowed`."""
        if self.mode is ManyMode.TEXT:
            return [(self, None)]
        best_and_worst = (self.scheme.categories[-1], self.scheme.categories[0])
        return [(replace(self, only=category), category) for category in best_and_worst]

    def fields(self, count: int) -> dict[str, Any]:
        """Request fields for `count` pairs, besides model and messages."""
        max_tokens = self.thought_tokens + FRAME_TOKENS + ENTRY_TOKENS * count
        fields: dict[str, Any] = {"max_tokens": max_tokens, "temperature": 0}
        if self.mode is ManyMode.STRUCTURED:
            fields["structured_outputs"] = {"regex": self._pattern(count)}
        elif self.mode is ManyMode.JSON:
            fields["response_format"] = response_format(self._schema())
        return fields

    def read(self, reply: object, count: int) -> tuple[Judgement, ...]:
        """One judgement for each pair, in the order in which they were asked about; never an error."""
        choice = first_choice(reply)
        if choice is None:
            return (Unscorable(Reason.MALFORMED, describe_no_choice(reply)),) * count
        text = answer_text(choice, thinks=self.thought_tokens > 0)
        return (text,) * count if isinstance(text, Unscorable) else read_verdicts(text, count, self.scheme)

    def _labels(self) -> list[str]:
        return list(self.scheme.labels) if self.only is None else [self.scheme.label(self.only)]

    def _pattern(self, count: int) -> str:
        category = "|".join(map(re.escape, self._labels()))
        entries = ", ".join(rf'\{{"id": {name}, "category": "({category})"\}}' for name in pair_ids(count))
        return rf'\{{"{LIST_KEY}": \[{entries}\]\}}'

    def _schema(self) -> dict[str, Any]:
        """JSON schema without the ids and the length of the list, which not every API can constrain."""
        entry = {
            "type": "object",
            "properties": {"id": {"type": "integer"}, "category": {"type": "string", "enum": self._labels()}},
            "required": ["id", "category"],
            "additionalProperties": False,
        }
        return {
            "type": "object",
            "properties": {LIST_KEY: {"type": "array", "items": entry}},
            "required": [LIST_KEY],
            "additionalProperties": False,
        }


def read_verdicts(text: str, count: int, scheme: Scheme) -> tuple[Judgement, ...]:
    """One judgement for each of `count` pairs from a JSON list of `{id, category}`, bare or under `verdicts`.

    An id that is missing or occurs twice, or a word that is no label, costs that one pair its verdict. Entries with an
    id of no pair are ignored.
    """
    entries = _entries(text)
    if isinstance(entries, Unscorable):
        return (entries,) * count
    named = [(entry.get("id"), entry.get("category")) for entry in entries if isinstance(entry, Mapping)]
    # True is an int in Python, and equal to 1.
    known = [(name, word) for name, word in named if isinstance(name, int) and not isinstance(name, bool)]
    times = Counter(name for name, _ in known)
    words = dict(known)

    def judgement(name: int) -> Judgement:
        if times[name] != 1:
            found = "lacks" if times[name] == 0 else f"holds {times[name]} verdicts for"
            return Unscorable(Reason.MALFORMED, f"the reply {found} the pair of id {name}")
        word = words[name]
        if not isinstance(word, str):
            return Unscorable(Reason.MALFORMED, f"the reply has no category for the pair of id {name}")
        return verdict_from_words(word, scheme)

    return tuple(judgement(name) for name in pair_ids(count))


def refuse_misfit(config: VerifierConfig, prompt: Prompt) -> None:
    """Raises ConfigError when the prompt's format does not fit the number of pairs in a request."""
    if config.pairs_per_request > 1 and prompt.format != "many":
        raise ConfigError(
            f"judge {config.name!r}: pairs_per_request={config.pairs_per_request} needs a prompt of format many, and "
            f"{prompt.name!r} asks about one pair; set `prompt: many`, or `pairs_per_request: 1`"
        )
    if config.pairs_per_request == 1 and prompt.format == "many":
        raise ConfigError(
            f"judge {config.name!r}: prompt {prompt.name!r} asks about several pairs at once; set `pairs_per_request` "
            "above 1, or use a prompt of format single"
        )


def _entries(text: str) -> Sequence[object] | Unscorable:
    stripped = text.strip()
    fenced = _FENCE.match(stripped)
    try:
        parsed = json.loads(fenced.group(1) if fenced else stripped)
    except (ValueError, RecursionError):  # also for numbers too long and lists nested too deep
        return Unscorable(Reason.MALFORMED, f"the reply is no JSON: {shorten(text)}")
    entries = parsed.get(LIST_KEY) if isinstance(parsed, Mapping) else parsed
    if not isinstance(entries, list):
        return Unscorable(Reason.MALFORMED, f"the reply holds no list of verdicts: {shorten(text)}")
    return entries
