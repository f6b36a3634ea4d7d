"""Judge prompts: a static part first, the pair last as JSON data."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from speciarl.answer import NORMALISER_VERSION, normalise
from speciarl.category import LABELS, Category
from speciarl.errors import ConfigError
from speciarl.verdict import Pair

FORMAT_VERSION = 1

SAMPLE_PAIR = Pair("golden retriever", "dog")
"""Any ordinary pair, for checks that do not care which."""

Messages = list[dict[str, str]]
"""Chat messages as the OpenAI API takes them."""


@dataclass(frozen=True)
class Golden:
    """A pair whose category any usable judge knows."""

    pair: Pair
    expected: frozenset[Category]


@dataclass(frozen=True)
class Prompt:
    """One judge prompt."""

    name: str
    system: str
    user_prefix: str = ""
    golden: tuple[Golden, ...] = ()

    def messages(self, pair: Pair) -> Messages:
        """The chat for one pair. Both texts are normalised and JSON-encoded, so that they stay data."""
        data = {"ground_truth": normalise(pair.ground_truth), "prediction": normalise(pair.prediction)}
        content = self.user_prefix + json.dumps(data, ensure_ascii=False)
        return [{"role": "system", "content": self.system}, {"role": "user", "content": content}]

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 over all that decides which text a judge sees for a pair; names and golden pairs take no
        part."""
        parts = [FORMAT_VERSION, NORMALISER_VERSION, self.system, self.user_prefix, LABELS]
        return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()


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
    file = _directory() / f"{name_or_path}.yaml"
    return _parse(file.read_text(encoding="utf-8"), name_or_path, name_or_path)


def shipped_prompts() -> list[str]:
    """Names of the prompts in this package, sorted."""
    return sorted(file.name.removesuffix(".yaml") for file in _directory().iterdir() if file.name.endswith(".yaml"))


def _directory() -> Any:
    return resources.files("speciarl.verifier_server") / "prompts"


def _parse(text: str, name: str, where: str) -> Prompt:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"judge prompt {where} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, Mapping):
        raise ConfigError(f"judge prompt {where} is no mapping; it needs `version`, `system` and `golden`")
    unknown = set(content) - {"version", "system", "user_prefix", "golden"}
    if unknown:
        raise ConfigError(f"judge prompt {where} has the unknown key {sorted(map(str, unknown))[0]!r}")
    if content.get("version") != FORMAT_VERSION:
        raise ConfigError(f"judge prompt {where}: `version` must be {FORMAT_VERSION}")
    system, user_prefix = content.get("system"), content.get("user_prefix") or ""
    if not (isinstance(system, str) and system and isinstance(user_prefix, str)):
        raise ConfigError(f"judge prompt {where}: `system` and `user_prefix` must be text, `system` not empty")
    golden = content.get("golden") or []
    if not isinstance(golden, list):
        raise ConfigError(f"judge prompt {where}: `golden` must be a list")
    return Prompt(
        name,
        system,
        user_prefix,
        tuple(_golden(entry, f"{where}, golden[{i}]") for i, entry in enumerate(golden)),
    )


def _golden(entry: Any, where: str) -> Golden:
    if not isinstance(entry, Mapping) or set(entry) != {"ground_truth", "prediction", "expect"}:
        raise ConfigError(f"judge prompt {where} needs exactly `ground_truth`, `prediction` and `expect`")
    expected = entry["expect"] if isinstance(entry["expect"], list) else [entry["expect"]]
    try:
        categories = frozenset(Category.from_label(str(label)) for label in expected)
    except ValueError as error:
        raise ConfigError(f"judge prompt {where}: {error}") from error
    return Golden(Pair(str(entry["ground_truth"]), str(entry["prediction"])), categories)
