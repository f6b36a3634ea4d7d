"""Recipe source: puts the recipes on Hydra's search path, as the config group ``recipe``."""

import os
from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

import speciarl

GROUP = "recipe"
PROVIDER = "speciarl"
SCHEME = "speciarl"


def recipe_directory() -> Path:
    """Directory of the installed recipes: beside the package, in a wheel and in a checkout.

    It is not looked up by ``import recipe``: the TransferQueue wheel puts a directory of that name into
    site-packages, which hides ours in an editable install.
    """
    return Path(speciarl.__file__).resolve().parent.parent / GROUP


class RecipeSource(ConfigSource):
    """Config source that serves one directory as one config group.

    A plain ``file://`` entry would have to name the parent directory, which is the whole of site-packages or of a
    checkout: Hydra would take every directory in it for a config group and walk it for ``--help``.
    """

    @staticmethod
    def scheme() -> str:
        return SCHEME

    def _resolve(self, config_path: str) -> str | None:
        """Path on disk for a path in the config tree, or None if it is outside our group."""
        group, _, inside = config_path.strip("/").partition("/")
        return os.path.join(self.path, inside) if group == GROUP else None

    def load_config(self, config_path: str) -> ConfigResult:
        full_path = self._resolve(self._normalize_file_name(config_path))
        if full_path is None or not os.path.isfile(full_path):
            raise ConfigLoadError(f"Config not found : {self.full_path()}/{config_path}")
        with open(full_path, encoding="utf-8") as file:
            # As many bytes as Hydra's own file source reads for the header lines (``# @package``).
            header = self._get_header_dict(file.read(512))
            file.seek(0)
            config = OmegaConf.load(file)
        return ConfigResult(config=config, path=self.full_path(), provider=self.provider, header=header)

    def available(self) -> bool:
        return os.path.isdir(self.path)

    def is_group(self, config_path: str) -> bool:
        full_path = self._resolve(config_path)
        return config_path.strip("/") == "" or (full_path is not None and os.path.isdir(full_path))

    def is_config(self, config_path: str) -> bool:
        full_path = self._resolve(self._normalize_file_name(config_path))
        return full_path is not None and os.path.isfile(full_path)

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        full_path = self._resolve(config_path)
        if full_path is None:
            return [GROUP] if results_filter in (None, ObjectType.GROUP) else []
        found: list[str] = []
        for name in os.listdir(full_path):
            self._list_add_result(found, f"{config_path}/{name}", name, results_filter)
        return sorted(set(found))


class RecipeSearchPath(SearchPathPlugin):
    """Search-path plug-in for the recipes. Appends them, so that no file of veRL's own configuration is shadowed."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        search_path.append(provider=PROVIDER, path=f"{SCHEME}://{recipe_directory()}")


def register() -> None:
    """Register both classes with Hydra; idempotent."""
    from hydra.core.plugins import Plugins

    plugins = Plugins.instance()
    plugins.register(RecipeSource)
    plugins.register(RecipeSearchPath)
