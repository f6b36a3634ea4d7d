"""Composition of a build's settings from the words of the command line, by Hydra."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_prep.config import BuildConfig, EmojiConfig, parse
from speciarl.errors import DataPrepError
from speciarl.hydra_support import words
from speciarl.utils.wrong_keys import meant

_ROOT = "build"
_GROUP = "dataset"
EMOJI = "emoji"


def folder() -> Path:
    """Folder of the configuration files."""
    return Path(__file__).parent / "conf"


def names() -> list[str]:
    """Values that ``dataset=`` can have."""
    return sorted(file.stem for file in (folder() / _GROUP).glob("*.yaml"))


def settings(overrides: Sequence[str]) -> BuildConfig | EmojiConfig:
    """The validated settings of a build, from ``KEY=VALUE`` words.

    Raises DataPrepError in one line that names the key.
    """
    chosen = _chosen(overrides)
    plain = _composed(overrides)
    if chosen == EMOJI:
        return _emoji(plain)
    if "sources" not in plain:
        plain["sources"] = {
            plain["name"]: {
                "dataset": plain.pop("reader"),
                "splits": plain.pop("splits"),
                "options": plain.pop("options"),
                "root": plain["root"],
            }
        }
    plain.pop("root")
    config: BuildConfig = parse(plain)
    return config


def _chosen(overrides: Sequence[str]) -> str:
    """The name after ``dataset=``."""
    words.refuse_no_setting(overrides, "dataset=cub200", DataPrepError)
    for word in overrides:
        key, _, value = word.partition("=")
        if key == _GROUP:
            if value not in names():
                raise DataPrepError(f"dataset: there is no {value!r}; {meant(value, names())}")
            return value
    raise DataPrepError(f"dataset=NAME is missing; known: {', '.join(names())}")


def _composed(overrides: Sequence[str]) -> dict[str, Any]:
    return words.composed(folder(), _ROOT, overrides, error=DataPrepError, group=_GROUP)


def _emoji(plain: Mapping[str, Any]) -> EmojiConfig:
    known = EmojiConfig.model_fields
    default = _composed([f"{_GROUP}={EMOJI}"])
    for key, value in plain.items():
        if key not in known and value != default[key]:
            raise DataPrepError(f"{key}: has no effect on dataset=emoji, which takes {', '.join(known)}")
    config: EmojiConfig = parse({key: plain[key] for key in known}, EmojiConfig)
    return config
