"""Settings from the words of a command line, composed by Hydra; a wrong one is told in one line that names the key."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from speciarl.errors import ConfigError, SpeciaRLError
from speciarl.utils.wrong_keys import meant


def refuse_no_setting(words: Sequence[str], example: str, error: type[SpeciaRLError] = ConfigError) -> None:
    """Raise `error` for a word that is no ``KEY=VALUE``."""
    for word in words:
        if "=" not in word and not word.startswith("~"):
            raise error(f"{word!r} is no setting; write KEY=VALUE, e.g. {example}")


def composed(
    folder: Path,
    root: str,
    words: Sequence[str],
    error: type[SpeciaRLError] = ConfigError,
    group: str = "",
    complete: bool = True,
) -> dict[str, Any]:
    """The plain settings of ``folder/root.yaml`` with ``KEY=VALUE`` words.

    Args:
        error: raised in one line for what cannot be composed.
        group: option group that decides which keys there are, for the message on an unknown one.
        complete: refuse keys that must be given and are not.
    """
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

    try:
        with initialize_config_dir(str(folder.resolve()), version_base=None):
            config = compose(root, overrides=list(words))
        plain: Any = OmegaConf.to_container(config, resolve=complete, throw_on_missing=complete)
    except OmegaConfBaseException as problem:
        key = problem.full_key or "settings"
        reason = "is missing" if isinstance(problem, MissingMandatoryValue) else _line(problem)
        raise error(f"{key}: {reason}; set it as {key}=VALUE") from problem
    except HydraException as problem:
        unread = next((word for word in words if not _can_be_read(word)), None)
        if unread is not None:
            raise error(_how_to_quote(unread)) from problem
        chosen = [word for word in words if word.partition("=")[0].lstrip("+~") == group]
        known = composed(folder, root, chosen, error, group, complete=False) if chosen != list(words) else {}
        raise error(_explained(problem, known)) from problem
    return dict(plain)


def _how_to_quote(word: str) -> str:
    key, _, value = word.partition("=")
    if value[:1] == "[" and value[-1:] == "]":  # each text of a list has quotes of its own
        quoted = f"[{','.join(_quoted(text.strip()) for text in value[1:-1].split(','))}]"
    else:
        quoted = _quoted(value)
    again = shlex.quote(f"{key}={quoted}")
    return f"{key}: the value {value!r} has signs of Hydra's own language; quote it twice: {again}"


def _quoted(text: str) -> str:
    """Text in the quotes of Hydra's grammar."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _explained(error: Exception, known: Any) -> str:
    """Message of a Hydra error in one line; for an unknown key, with what may have been meant of the `known` ones."""
    message = _line(error)
    quoted = message.partition("'")[2].partition("'")[0]
    if not message.startswith("Could not override"):
        return message
    place, _, last = quoted.rpartition(".")
    node = known
    for part in place.split(".") if place else ():
        node = node.get(part) if isinstance(node, Mapping) else None
    beside = node if isinstance(node, Mapping) else {}
    names = sorted(map(str, beside))
    if not difflib.get_close_matches(last, names, n=1):  # perhaps the word before it was left out
        for section, content in beside.items():
            near = difflib.get_close_matches(last, map(str, content), n=1) if isinstance(content, Mapping) else []
            if near:
                meant_key = ".".join(filter(None, (place, str(section), near[0])))
                return f"{quoted}: there is no such key; did you mean {meant_key}?"
    return f"{quoted}: there is no such key" + (f"; {meant(last, names)}" if names else "")


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
