"""Where settings come from: a YAML file, recipe options, and KEY=VALUE on the command line."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from speciarl.errors import ConfigError
from speciarl.verifier_server.service.settings import ServiceConfig, parse_settings


def load_settings(file: Path | None, options: Sequence[str], overrides: Sequence[str]) -> ServiceConfig:
    """Settings from a file, judges from options of ``recipe/verifier``, and overrides such as
    ``limits.runs=10``, which win.

    Raises ConfigError in one line.
    """
    merged: DictConfig | ListConfig = OmegaConf.create(_read(file) if file else {})
    try:
        for option in options:
            merged = OmegaConf.merge(merged, {"judges": {option: _verifier_option(option)}})
        for override in overrides:
            if "=" not in override:
                raise ConfigError(f"{override!r} is no override; write it like limits.runs=10")
        merged = OmegaConf.merge(merged, OmegaConf.from_dotlist(list(overrides)))
        plain: Any = OmegaConf.to_container(merged, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        key = f"{error.full_key}: " if error.full_key else ""
        raise ConfigError(f"{key}{str(error).splitlines()[0]}; give it as KEY=VALUE or in the file") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"an override cannot be read: {' '.join(str(error).split())}") from error
    if not plain:
        raise ConfigError("there is no judge: give --config FILE or --verifier NAME (`speciarl recipes` lists them)")
    return parse_settings(plain)


def _read(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file} cannot be read ({error.strerror}); correct --config") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{file} is no mapping; it needs at least `judges`")
    return content


def _verifier_option(name: str) -> DictConfig:
    """The judge that ``recipe/verifier=NAME`` stands for, with the values it still asks for missing."""
    from hydra import compose, initialize
    from hydra.errors import HydraException

    from speciarl import recipe_source, resolvers

    recipe_source.register()
    resolvers.register()
    try:
        with initialize(config_path=None, version_base=None):
            composed = compose(overrides=[f"+recipe/verifier={name}"])
    except HydraException as error:
        known = sorted(file.stem for file in (recipe_source.recipe_directory() / "verifier").glob("*.yaml"))
        raise ConfigError(f"--verifier {name}: there is no such option; known: {', '.join(known)}") from error
    node = composed.speciarl.verifier
    if not isinstance(node, DictConfig):
        raise ConfigError(f"--verifier {name}: its recipe has no speciarl.verifier mapping")
    return node
