"""Prompts of a build: templates by name or file, of which one is drawn for each row."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from data_prep.selection.seeded import choose
from speciarl.errors import DataPrepError

IMAGE = "<image>"
"""Placeholder in a prompt that veRL's RLHFDataset replaces by the row's image."""
OTHER_MEDIA = ("<video>", "<audio>")
_HASH_DIGITS = 8


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt template."""

    name: str
    text: str

    @property
    def id(self) -> str:
        """The name with a hash of the text, so that a changed text is seen in the rows: ``general@0a1b2c3d``."""
        return f"{self.name}@{hashlib.sha256(self.text.encode()).hexdigest()[:_HASH_DIGITS]}"


@dataclass(frozen=True, slots=True)
class PromptPool:
    """Templates by name, with weights."""

    prompts: Mapping[str, Prompt]
    weights: Mapping[str, float]

    def pick(self, seed: int, sample_id: str) -> Prompt:
        """The prompt of a sample, drawn by weight; the same for the same seed, id and pool."""
        return self.prompts[choose(seed, "prompt", sample_id, self.weights)]


def known() -> list[str]:
    """Names of the templates that are shipped with the package."""
    folder = resources.files("data_prep") / "prompts"
    return sorted(file.name.removesuffix(".txt") for file in folder.iterdir() if file.name.endswith(".txt"))


def load(names: Mapping[str, float]) -> PromptPool:
    """The pool of the named templates and their weights; a name with ``/`` or ``.txt`` is a file of the user's.

    Raises DataPrepError for an unknown name, an unreadable file, a text that veRL or the reward could not use, two
    templates of one name, and weights without one above zero.
    """
    if not any(weight > 0 for weight in names.values()):
        raise DataPrepError("prompts: give at least one prompt with a weight above 0")
    prompts: dict[str, Prompt] = {}
    weights: dict[str, float] = {}
    for name, weight in names.items():
        prompt = _read(name)
        if prompt.name in prompts:
            raise DataPrepError(f"prompts: two templates are called {prompt.name!r}; rename a file")
        prompts[prompt.name], weights[prompt.name] = prompt, weight
    return PromptPool(prompts, weights)


def _read(name: str) -> Prompt:
    if "/" in name or name.endswith(".txt"):
        file = Path(name).expanduser()
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
            raise DataPrepError(f"prompts: {file}: {reason}") from error
        return _checked(Prompt(file.stem, text.strip()), str(file))
    if name not in known():
        raise DataPrepError(
            f"prompts: there is no prompt {name!r}; known: {', '.join(known())}, or a path to a .txt file"
        )
    text = resources.files("data_prep").joinpath("prompts", f"{name}.txt").read_text(encoding="utf-8")
    return _checked(Prompt(name, text.strip()), name)


def _checked(prompt: Prompt, where: str) -> Prompt:
    if prompt.text.count(IMAGE) != 1:
        raise DataPrepError(f"prompts: {where}: {IMAGE} must stand in it exactly once, where the image goes")
    for tag in OTHER_MEDIA:
        if tag in prompt.text:
            raise DataPrepError(f"prompts: {where}: {tag} would be taken for another medium; leave it out")
    if "<answer>" not in prompt.text or "</answer>" not in prompt.text:
        raise DataPrepError(
            f"prompts: {where}: it must ask for the answer inside <answer> </answer>, where it is looked for"
        )
    return prompt
