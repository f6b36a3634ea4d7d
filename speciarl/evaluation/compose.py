"""Composition of an evaluation's settings from the words of the command line, by Hydra."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from speciarl.errors import ConfigError
from speciarl.evaluation.config import EvaluationConfig, parse
from speciarl.hydra_support import resolvers, words
from speciarl.utils.wrong_keys import meant

_ROOT = "evaluate"
_GROUP = "preset"
_OPEN = ("models.", "datasets.", "judges.", "engine.args.", "metrics.scores.")
"""Mappings whose keys are the user's."""


def folder() -> Path:
    """Folder of the configuration files."""
    return Path(__file__).parent / "conf"


def settings(given: Sequence[str]) -> EvaluationConfig:
    """The validated settings of an evaluation, from ``KEY=VALUE`` words; raises ConfigError in one line that names the
    key.

    A word that is the path of a .yaml file takes all settings from there, as an evaluation has written them; the other
    words change them.
    """
    files = [word for word in given if word.endswith((".yaml", ".yml")) and "=" not in word]
    others = [word for word in given if word not in files]
    words.refuse_no_setting(others, "preset=laptop")
    if len(files) > 1:
        raise ConfigError(f"{files[1]}: give one file of settings")
    presets = sorted(file.stem for file in (folder() / _GROUP).glob("*.yaml"))
    for word in others:
        key, _, value = word.partition("=")
        if key == _GROUP and value not in presets:
            raise ConfigError(f"{_GROUP}: there is no {value!r}; {meant(value, presets)}")
    resolvers.register()
    if files:
        path = Path(files[0])
        if not path.is_file():
            raise ConfigError(f"{path} does not exist; give the evaluation.yaml of an evaluation, or KEY=VALUE words")
        return parse(words.composed(path.parent, path.stem, list(map(_may_add, others))))
    return parse(words.composed(folder(), _ROOT, list(map(_may_add, others)), group=_GROUP))


def written(config: EvaluationConfig) -> str:
    """The settings as a YAML file that `settings` takes."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _may_add(word: str) -> str:
    """Hydra wants ``+`` before a key that is not there yet; below the mappings that are the user's, any key may be."""
    return f"++{word}" if word.startswith(_OPEN) else word
