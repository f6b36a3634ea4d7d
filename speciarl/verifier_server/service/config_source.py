"""Settings sources: a YAML file, recipe options, and KEY=VALUE overrides on the command line."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from speciarl.errors import ConfigError
from speciarl.verifier_server.judge_config import override_value, read_mapping, recipe_judge
from speciarl.verifier_server.service.config import ServiceConfig, parse_settings


def load_settings(
    file: Path | None, options: Sequence[str], overrides: Sequence[str], store: str | None = None
) -> ServiceConfig:
    """Settings from a file, judges from options of ``recipe/verifier``, the verdict store (the path of a file, a
    Redis URL or ``none``), and overrides such as ``limits.runs=10``, which win.

    Raises ConfigError in one line.
    """
    settings = read_mapping(file, "at least `judges`") if file else {}
    if store is not None:
        settings["store"] = _store_section(store)
    merged: DictConfig | ListConfig = OmegaConf.create(settings)
    try:
        for option in options:
            merged = OmegaConf.merge(merged, {"judges": {option: recipe_judge(option)}})
        for override in overrides:
            key, equals, value = override.partition("=")
            if not equals:
                raise ConfigError(f"{override!r} is no override; write it like limits.runs=10")
            OmegaConf.update(merged, key, override_value(ServiceConfig, key, value), force_add=True)
        plain: Any = OmegaConf.to_container(merged, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        key = f"{error.full_key}: " if error.full_key else ""
        raise ConfigError(f"{key}{str(error).splitlines()[0]}; give it as KEY=VALUE or in the file") from error
    if "judges" not in plain:
        raise ConfigError("there is no judge: give --config FILE or --verifier NAME (`speciarl recipes` lists them)")
    return parse_settings(plain)


def _store_section(place: str) -> dict[str, str] | None:
    """The section `store` for the path of a file, a Redis URL or ``none``."""
    if place in ("file", "redis"):
        raise ConfigError(f"--store {place}: say where: the path of a file, or redis://HOST:6379/0")
    if place == "none":
        return None
    return {"kind": "redis", "url": place} if "://" in place else {"kind": "file", "path": place}
