"""Composition of a build's settings from the words of the command line, by Hydra."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_prep.config import BuildConfig, EmojiConfig, parse
from speciarl.errors import DataPrepError
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
    for word in overrides:
        if "=" not in word and not word.startswith("~"):
            raise DataPrepError(f"{word!r} is no setting; write KEY=VALUE, e.g. dataset=cub200")
    for word in overrides:
        key, _, value = word.partition("=")
        if key == _GROUP:
            if value not in names():
                raise DataPrepError(f"dataset: there is no {value!r}; {meant(value, names())}")
            return value
    raise DataPrepError(f"dataset=NAME is missing; known: {', '.join(names())}")


def _composed(overrides: Sequence[str], complete: bool = True) -> dict[str, Any]:
    """The plain settings; with `complete`, keys that must be given and are not are refused."""
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

    try:
        with initialize_config_dir(str(folder().resolve()), version_base=None):
            config = compose(_ROOT, overrides=list(overrides))
        plain: Any = OmegaConf.to_container(config, resolve=complete, throw_on_missing=complete)
    except OmegaConfBaseException as error:
        key = error.full_key or "settings"
        reason = "is missing" if isinstance(error, MissingMandatoryValue) else _line(error)
        raise DataPrepError(f"{key}: {reason}; set it as {key}=VALUE") from error
    except HydraException as error:
        raise DataPrepError(_explained(error, overrides)) from error
    return dict(plain)


def _explained(error: Exception, overrides: Sequence[str]) -> str:
    """Message of a Hydra error in one line; for an unknown key, with what may have been meant."""
    unread = next((word for word in overrides if not _can_be_read(word)), None)
    if unread is not None:
        key, _, value = unread.partition("=")
        if value[:1] == "[" and value[-1:] == "]":  # each text of a list has quotes of its own
            quoted = f"[{','.join(_quoted(text.strip()) for text in value[1:-1].split(','))}]"
        else:
            quoted = _quoted(value)
        word = shlex.quote(f"{key}={quoted}")
        return f"{key}: the value {value!r} has signs of Hydra's own language; quote it twice: {word}"
    message = _line(error)
    quoted = message.partition("'")[2].partition("'")[0]
    if not message.startswith("Could not override"):
        return message
    place, _, last = quoted.rpartition(".")
    dataset = [word for word in overrides if word.partition("=")[0].lstrip("+~") == _GROUP]
    node: Any = _composed(dataset, complete=False)  # the user's own keys are not looked at
    for part in place.split(".") if place else ():
        node = node.get(part) if isinstance(node, Mapping) else None
    known = sorted(map(str, node)) if isinstance(node, Mapping) else []
    options = node.get("options") if isinstance(node, Mapping) else None
    near = difflib.get_close_matches(last, map(str, options), n=1) if isinstance(options, Mapping) else []
    if near and not difflib.get_close_matches(last, known, n=1):  # an option without the word before it
        return f"{quoted}: there is no such key; did you mean {'.'.join(filter(None, (place, 'options', *near)))}?"
    return f"{quoted}: there is no such key" + (f"; {meant(last, known)}" if known else "")


def _quoted(text: str) -> str:
    """Text in the quotes of Hydra's grammar."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _can_be_read(word: str) -> bool:
    """Whether Hydra's grammar takes a word; paths and names with spaces, brackets or ``=`` need quotes."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return not OverridesParser.create().parse_override(word).is_sweep_override()  # a comma
    except HydraException:
        return False


def _line(error: Exception) -> str:
    return " ".join(str(error).split("\nSee ")[0].split("\nTo append")[0].split("\n    full_key")[0].split())


def _emoji(plain: Mapping[str, Any]) -> EmojiConfig:
    known = EmojiConfig.model_fields
    default = _composed([f"{_GROUP}={EMOJI}"])
    for key, value in plain.items():
        if key not in known and value != default[key]:
            raise DataPrepError(f"{key}: has no effect on dataset=emoji, which takes {', '.join(known)}")
    config: EmojiConfig = parse({key: plain[key] for key in known}, EmojiConfig)
    return config
