"""Recipes as a Hydra config source: one group, and nothing else of the directory around it."""

from pathlib import Path

import pytest
import verl  # noqa: F401  (loads the plug-in)
from hydra import compose, initialize_config_module
from hydra.core.object_type import ObjectType
from hydra.errors import MissingConfigException
from hydra.plugins.config_source import ConfigLoadError
from omegaconf import DictConfig

from speciarl.hydra_support.recipe_source import RecipeSource, recipe_directory


@pytest.fixture
def source(tmp_path: Path) -> RecipeSource:
    (tmp_path / "verifier").mkdir()
    (tmp_path / "main.yaml").write_text("# @package _global_\nkey: 1\n")
    (tmp_path / "verifier" / "one.yaml").write_text("name: one\n")
    (tmp_path / "__init__.py").touch()
    return RecipeSource("speciarl", f"speciarl://{tmp_path}")


def test_tree(source: RecipeSource) -> None:
    assert source.available()
    assert source.is_group("")
    assert source.is_group("recipe")
    assert source.is_group("recipe/verifier")
    assert source.is_config("recipe/main")
    assert source.is_config("recipe/verifier/one.yaml")
    assert source.list("", None) == ["recipe"]
    assert source.list("recipe", ObjectType.CONFIG) == ["main"]
    assert source.list("recipe", ObjectType.GROUP) == ["verifier"]
    assert source.list("recipe/verifier", None) == ["one"]


@pytest.mark.parametrize(
    "path", ["verifier", "main", "recipe/absent", "recipe/__init__", "other/main", "recipe/verifier/main"]
)
def test_nothing_else_exists(source: RecipeSource, path: str) -> None:
    assert not source.is_config(path)
    with pytest.raises(ConfigLoadError):
        source.load_config(path)


def test_config_and_header_are_read(source: RecipeSource) -> None:
    loaded = source.load_config("recipe/main")
    assert isinstance(loaded.config, DictConfig)
    assert loaded.config.key == 1
    assert loaded.header["package"] == "_global_"
    assert loaded.provider == "speciarl"


def test_missing_directory_is_not_available(tmp_path: Path) -> None:
    assert not RecipeSource("speciarl", f"speciarl://{tmp_path / 'absent'}").available()


def test_directory_of_the_installed_recipes() -> None:
    assert (recipe_directory() / "speciarl.yaml").is_file()


def test_composed_on_verls_own_configuration() -> None:
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer", overrides=["+recipe=speciarl"])
    assert config.algorithm.adv_estimator == "grpo"


def test_unknown_recipe_ends_with_the_list_of_known_ones() -> None:
    named = r"Could not find 'recipe/nonsense'[\s\S]*\tspeciarl"
    with (
        initialize_config_module("verl.trainer.config", version_base=None),
        pytest.raises(MissingConfigException, match=named),
    ):
        compose("ppo_trainer", overrides=["+recipe=nonsense"])
