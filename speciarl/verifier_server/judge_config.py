"""Judge configuration, loaded from a recipe option or a YAML file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel

from speciarl.errors import ConfigError
from speciarl.verifier_server.config import VerifierConfig, parse_config

_NODE = "speciarl.verifier"


def judge_config(source: str, overrides: Sequence[str] = ()) -> VerifierConfig:
    """The judge of ``recipe/verifier=SOURCE``, or of a .yaml file that holds a verifier mapping.

    Overrides such as ``model=NAME`` take precedence; they may carry the path they have in a training run,
    ``speciarl.verifier.model=NAME``. Raises ConfigError in one line.
    """
    from_file = source.endswith((".yaml", ".yml"))
    try:
        node = OmegaConf.create(read_mapping(Path(source)) if from_file else recipe_judge(source))
        for override in overrides:
            key, equals, value = override.partition("=")
            if not equals:
                raise ConfigError(f"{override!r} is no override; write it like model=NAME")
            key = key.removeprefix(f"{_NODE}.")
            OmegaConf.update(node, key, override_value(VerifierConfig, key, value), force_add=True)
        plain: Any = OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        key = f"{error.full_key}: " if error.full_key else ""
        raise ConfigError(f"judge {source}: {key}{str(error).splitlines()[0]}; give it as KEY=VALUE") from error
    return parse_config(plain, at=source)


def override_value(model: type[BaseModel], key: str, value: str) -> Any:
    """The value of a KEY=VALUE word, by the type of the key in the model: text as it was typed, all else as YAML.

    Read as YAML, text could lose its end (``a #b``) or become a number or a date. Raises ConfigError in one line.
    """
    if value not in ("", "null", "~") and value[:1] not in ("'", '"') and _is_text(model, key.split(".")):
        return value
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError as error:
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise ConfigError(f"{key}: {value!r} is no YAML ({problem}); put its texts in quotes") from error


def _is_text(model: type[BaseModel], path: Sequence[str]) -> bool:
    """Whether the key at a path, from a model down, holds text and nothing else."""
    field = model.model_fields.get(path[0])
    kind = field.annotation if field is not None else None
    if get_origin(kind) in (Union, UnionType):
        kind = next(part for part in get_args(kind) if part is not NoneType)
    if get_origin(kind) is Mapping:  # the name of an entry comes next
        kind, path = get_args(kind)[1], path[1:]
    if len(path) < 2:
        return kind is str
    return isinstance(kind, type) and issubclass(kind, BaseModel) and _is_text(kind, path[1:])


def read_mapping(path: Path, needs: str = "the keys of one judge, such as `model` and `endpoints`") -> dict[str, Any]:
    """The mapping in a YAML file; raises ConfigError in one line, which says what the file `needs` if it holds none."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}); check the path") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is no text in UTF-8; check the path") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} is no mapping; it needs {needs}")
    return content


def recipe_judge(name: str) -> DictConfig:
    """The judge of ``recipe/verifier=NAME``, with mandatory values still missing; raises ConfigError in one line."""
    from hydra import compose, initialize
    from hydra.errors import HydraException

    from speciarl.hydra_support import recipe_source, resolvers

    recipe_source.register()
    resolvers.register()
    known = sorted(file.stem for file in (recipe_source.recipe_directory() / "verifier").glob("*.yaml"))
    if name not in known:
        raise ConfigError(f"there is no recipe/verifier={name}; known: {', '.join(known)}, or give a .yaml file")
    try:
        with initialize(config_path=None, version_base=None):
            node = OmegaConf.select(compose(overrides=[f"+recipe/verifier={name}"]), _NODE)
    except HydraException as error:
        raise ConfigError(f"recipe/verifier={name} cannot be composed: {' '.join(str(error).split())}") from error
    if not isinstance(node, DictConfig):
        raise ConfigError(f"recipe/verifier={name} has no {_NODE} mapping")
    return node
