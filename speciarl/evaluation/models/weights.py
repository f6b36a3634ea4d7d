"""Weights of a model's directory: which tensors it has, read from the heads of its files, and what modules they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from speciarl.errors import DataError
from speciarl.evaluation.models.fingerprint import loaded_weights, model_files

if TYPE_CHECKING:
    from torch import Tensor

_WRAPPERS = frozenset({"base_model", "model", "language_model"})


def canonical(name: str) -> str:
    """A module's name without its wrappers, which releases of transformers name and nest differently:
    ``model.layers.0.mlp`` and ``model.language_model.layers.0.mlp`` are ``layers.0.mlp``."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


@dataclass(frozen=True)
class Weights:
    """Tensors of a model, without their content."""

    folder: Path
    shapes: Mapping[str, tuple[int, ...]]
    files: Mapping[str, list[str]]
    """Names of the tensors in each file, by the file's name."""

    @cached_property
    def _by_module(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name in self.shapes:
            if name.endswith(".weight"):
                found.setdefault(canonical(name.removesuffix(".weight")), []).append(name)
        return found

    def weight_of(self, module: str) -> str | None:
        """Name of the weight of a module, whatever its wrappers are called; None where there is not exactly one."""
        names = self._by_module.get(canonical(module), [])
        return names[0] if len(names) == 1 else None

    def shape(self, weight: str) -> tuple[int, ...]:
        """Shape of a weight."""
        return self.shapes[weight]


def weights(folder: Path) -> Weights:
    """What a model's safetensors hold; raises DataError in one line for other formats, or a broken file."""
    from safetensors import SafetensorError, safe_open

    shapes: dict[str, tuple[int, ...]] = {}
    files: dict[str, list[str]] = {}
    for name in loaded_weights(file.name for file in model_files(folder) if file.parent == folder):
        if not name.endswith(".safetensors"):
            raise DataError(f"{folder} has its weights in {name}; adapters need safetensors: save the model as such")
        try:
            with safe_open(folder / name, framework="pt") as opened:
                files[name] = sorted(opened.keys())
                shapes.update({key: tuple(opened.get_slice(key).get_shape()) for key in files[name]})
        except (OSError, SafetensorError) as error:
            raise broken(folder / name, error) from error
    return Weights(folder, shapes, files)


def load(file: Path) -> dict[str, Tensor]:
    """Tensors of a file, by name: safetensors, or what torch saved. Runs no code that the file may hold.

    Raises DataError in one line when it cannot be read.
    """
    import pickle

    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        loaded: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, SafetensorError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise broken(file, error) from error
    return loaded


def save(tensors: dict[str, Tensor], file: Path, metadata: dict[str, str] | None) -> None:
    """Write a file of safetensors; raises OSError, on a full disk, say."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(tensors, file, metadata=metadata)
    except SafetensorError as error:
        raise OSError(str(error)) from error


def broken(file: Path, error: Exception) -> DataError:
    """Error about a file of weights that cannot be read."""
    cause = (" ".join(str(error).split()) or type(error).__name__)[:200]
    return DataError(f"{file} cannot be read ({cause}); copy or download it again")
