"""Judge prompt: builds the chat about pairs, a static part first, for the prefix cache, then the pairs as JSON data."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from speciarl.answer import NORMALISER_VERSION, normalise
from speciarl.category import Category
from speciarl.errors import ConfigError
from speciarl.utils.wrong_keys import meant
from speciarl.verdict import Pair
from speciarl.verifier_server.judge.labels import SCHEMES, SIX, Scheme

FORMAT_VERSION = 1

SAMPLE_PAIR = Pair("golden retriever", "dog")
"""An ordinary pair, for checks whose result does not depend on the pair."""

Messages = list[dict[str, str]]
"""Chat messages as the OpenAI API takes them."""

Format = Literal["single", "many"]
"""`single`: one pair per request, a JSON object. `many`: several, a JSON array of objects with an id each."""

_KEYS = ("version", "scheme", "format", "system", "user_prefix", "names", "golden")


@dataclass(frozen=True)
class Golden:
    """Golden pair, which any usable judge puts into one of the expected categories."""

    pair: Pair
    expected: frozenset[Category]
    kind: str = "golden"
    """`golden`, or the kind of attack in the anti-gaming set (see `attacks`)."""


@dataclass(frozen=True)
class Prompt:
    """One judge prompt, with its label set and golden pairs."""

    name: str
    system: str
    user_prefix: str = ""
    golden: tuple[Golden, ...] = ()
    scheme: Scheme = SIX
    format: Format = "single"
    names: tuple[str, ...] = ()
    """Names from the prompt's domain that exclude each other, for the anti-gaming set; () for the set's own."""

    def messages(self, *pairs: Pair) -> Messages:
        """The chat about one pair, or about several with format `many`. All texts are normalised and JSON-encoded, so
        that they stay data; raises ValueError for another number of pairs."""
        if not pairs or (len(pairs) > 1 and self.format == "single"):
            raise ValueError(f"prompt {self.name!r} of format {self.format} cannot ask about {len(pairs)} pairs")
        fields = [
            {"ground_truth": normalise(pair.ground_truth), "prediction": normalise(pair.prediction)} for pair in pairs
        ]
        many = [{"id": name, **data} for name, data in zip(pair_ids(len(pairs)), fields, strict=True)]
        # The static text comes first, so that the server computes it once for all pairs (prefix cache).
        content = self.user_prefix + json.dumps(fields[0] if self.format == "single" else many, ensure_ascii=False)
        return [{"role": "system", "content": self.system}, {"role": "user", "content": content}]

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 over all that decides which text a judge sees for a pair and what its labels mean; names and golden
        pairs are left out."""
        scheme = [self.scheme.labels, self.scheme.categories]
        parts = [FORMAT_VERSION, NORMALISER_VERSION, self.format, self.system, self.user_prefix, scheme]
        return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()


def pair_ids(count: int) -> tuple[int, ...]:
    """The ids of the pairs of one request, all different, three digits each, for up to 900 pairs.

    They are scattered, so that a judge has to copy them: with 1, 2, 3 a judge that skips a pair and counts on would
    shift all later verdicts by one pair, undetected.
    """
    return tuple(100 + (index * 379 + 411) % 900 for index in range(count))


def load_prompt(name_or_path: str) -> Prompt:
    """A shipped prompt by name, or one from a YAML file; raises ConfigError in one line."""
    if name_or_path.endswith((".yaml", ".yml")):
        path = Path(name_or_path)
        try:
            return _parse(path.read_text(encoding="utf-8"), path.stem, str(path))
        except OSError as error:
            raise ConfigError(f"judge prompt {path} cannot be read ({error.strerror}); check `prompt`") from error
    if name_or_path not in shipped_prompts():
        known = ", ".join(shipped_prompts())
        raise ConfigError(
            f"there is no judge prompt {name_or_path!r}; known: {known}, or give the path of a .yaml file"
        )
    file = prompt_directory() / f"{name_or_path}.yaml"
    return _parse(file.read_text(encoding="utf-8"), name_or_path, name_or_path)


def shipped_prompts() -> list[str]:
    """Names of the prompts in this package, sorted."""
    files = (file.name for file in prompt_directory().iterdir())
    return sorted(name.removesuffix(".yaml") for name in files if name.endswith(".yaml") and name[0] != "_")


def prompt_directory() -> Any:
    """Directory of the shipped prompts; files whose names begin with an underscore are no prompts."""
    return resources.files("speciarl.verifier_server") / "prompts"


def _parse(text: str, name: str, where: str) -> Prompt:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"judge prompt {where} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, Mapping):
        raise ConfigError(f"judge prompt {where} is no mapping; it needs `version`, `system` and `golden`")
    unknown = set(content) - set(_KEYS)
    if unknown:
        first = sorted(map(str, unknown))[0]
        raise ConfigError(f"judge prompt {where}: {first}: there is no such key; {meant(first, _KEYS)}")
    if content.get("version") != FORMAT_VERSION:
        raise ConfigError(f"judge prompt {where}: `version` must be {FORMAT_VERSION}")
    scheme, form = content.get("scheme", SIX.name), content.get("format", "single")
    if not isinstance(scheme, str) or scheme not in SCHEMES:
        raise ConfigError(f"judge prompt {where}: `scheme` must be one of {', '.join(SCHEMES)}")
    if form not in get_args(Format):
        raise ConfigError(f"judge prompt {where}: `format` must be one of {', '.join(get_args(Format))}")
    system, user_prefix = content.get("system"), content.get("user_prefix") or ""
    if not (isinstance(system, str) and system and isinstance(user_prefix, str)):
        raise ConfigError(f"judge prompt {where}: `system` and `user_prefix` must be text, `system` not empty")
    golden, names = content.get("golden") or [], content.get("names") or []
    if not isinstance(golden, list):
        raise ConfigError(f"judge prompt {where}: `golden` must be a list")
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names)) or len(names) in (1, 2):
        raise ConfigError(f"judge prompt {where}: `names` must be a list of at least three names")
    return Prompt(
        name,
        system,
        user_prefix,
        tuple(_golden(entry, SCHEMES[scheme], f"{where}, golden[{i}]") for i, entry in enumerate(golden)),
        SCHEMES[scheme],
        form,
        tuple(names),
    )


def _golden(entry: Any, scheme: Scheme, where: str) -> Golden:
    if not isinstance(entry, Mapping) or set(entry) != {"ground_truth", "prediction", "expect"}:
        raise ConfigError(f"judge prompt {where} needs exactly `ground_truth`, `prediction` and `expect`")
    expected = entry["expect"] if isinstance(entry["expect"], list) else [entry["expect"]]
    try:
        categories = frozenset(scheme.category(str(label)) for label in expected)
    except ValueError as error:
        raise ConfigError(f"judge prompt {where}: {error}") from error
    return Golden(Pair(str(entry["ground_truth"]), str(entry["prediction"])), categories)
