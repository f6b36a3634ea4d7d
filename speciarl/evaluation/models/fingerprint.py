"""Fingerprints of models: hashes of the content of all files that can change an answer, and of nothing else.

Where a folder lies and when its files were written is no part of a fingerprint; names of the files within it are, as
loaders go by them. All bytes are read each time: a file can change while its time and size stay.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path

from blake3 import blake3

from speciarl.errors import DataError

WEIGHTS = ("*.safetensors", "*.bin", "*.pt")
"""Kinds of weight files, in the order in which vLLM looks for them: it loads the first kind that is there."""
_SMALL = ("*.json", "*.txt", "*.model", "*.tiktoken", "*.jinja", "*.py")
_NO_WEIGHTS = ("optimizer*", "scheduler*", "training_args*", "rng_state*", "adapter_model*")
_NO_SETTINGS = ("README*", "LICENSE*", "NOTICE*", "trainer_state.json", "adapter_config.json")
_INDEX = "model.safetensors.index.json"
_TEMPLATES = "additional_chat_templates"
ADAPTER = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")


def loaded_weights(names: Iterable[str]) -> list[str]:
    """Weight files that vLLM loads, of all file names of a model: one kind only; none where there are none."""
    usable = [name for name in names if not _matches(name, _NO_WEIGHTS)]
    kinds = ([name for name in usable if fnmatch(name, kind)] for kind in WEIGHTS)
    return sorted(next((found for found in kinds if found), []))


def loaded_files(names: Iterable[str]) -> list[str]:
    """Files of a model that can change an answer, of all its file names: weights, configuration, tokenizer, chat
    templates, processor and code. Other formats of the same weights (``original/``) are in folders of their own."""
    top = [name for name in names if "/" not in name or (name.startswith(f"{_TEMPLATES}/") and name.count("/") == 1)]
    settings = [name for name in top if _matches(name, _SMALL) and not _matches(name, _NO_SETTINGS)]
    return sorted({*settings, *loaded_weights(name for name in top if "/" not in name)})


def model_files(folder: Path) -> list[Path]:
    """Files of a model's directory that can change an answer; raises DataError where it holds no model."""
    try:
        inside = [*folder.iterdir(), *(folder / _TEMPLATES).glob("*")]
    except OSError as error:
        raise DataError(f"{folder} cannot be read ({error.strerror}); give the directory of a model") from error
    names = [path.relative_to(folder).as_posix() for path in inside if path.is_file()]
    if "config.json" not in names:
        raise DataError(f"{folder} has no config.json, so it is no model; give the directory that has one")
    weights = loaded_weights(names)
    if not weights:
        raise DataError(f"{folder} has no weights (*.safetensors); give the directory of a whole model")
    if (folder / _INDEX).is_file() and (missing := sorted(_indexed(folder / _INDEX).difference(weights))):
        raise DataError(f"{folder} lacks {missing[0]}, which {_INDEX} names; copy or download the model again")
    return [folder / name for name in loaded_files(names)]


def _indexed(index: Path) -> set[str]:
    try:
        return set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{index} is no index of weights; copy or download the model again") from error


def adapter_files(folder: Path) -> list[Path]:
    """Files of a PEFT adapter's directory that can change an answer."""
    return [folder / name for name in ADAPTER if (folder / name).is_file()]


def fingerprint(folder: Path, files: Iterable[Path]) -> str:
    """Hash of files, which lie in `folder`, with their names in it, as ``ALGORITHM:HEX``.

    Raises DataError when one cannot be read.
    """
    named = sorted((path.relative_to(folder).as_posix(), path) for path in files)
    return combined(*(part for name, path in named for part in (name, _hash_of(path))))


def combined(*parts: str) -> str:
    """Hash of a list of texts, as ``ALGORITHM:HEX``; another list has another hash."""
    joined = "".join(f"{len(part)}:{part}" for part in parts).encode()
    return f"blake3:{blake3(joined).hexdigest()}"


def _hash_of(path: Path) -> str:
    try:
        return str(blake3(max_threads=blake3.AUTO).update_mmap(path).hexdigest())
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); every file of a model is hashed") from error


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)
