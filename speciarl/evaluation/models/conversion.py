"""Conversion of veRL checkpoints: whole weights to a model's directory, LoRA to an adapter as PEFT reads it.

veRL's own `model_merger` rounds to bfloat16, writes an alpha of 0 where it finds none, and names target modules by
their last part, which other modules of the model have too. Here tensors keep their type, an alpha that is not known
is an error, and targets are named whole.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speciarl.errors import ConfigError, DataError
from speciarl.evaluation.models.adapter import CONFIG, TENSORS
from speciarl.evaluation.models.checkpoint import Checkpoint
from speciarl.evaluation.models.weights import save

if TYPE_CHECKING:
    from torch import Tensor

METHOD = "1"
"""Changes when conversion writes something else; part of the hash of what comes out."""
_FILE_BYTES = 4 << 30
_PREFIX = "base_model.model."


def has_adapter(checkpoint: Checkpoint) -> bool:
    """Whether LoRA was trained."""
    return any(_is_lora(name) for name in checkpoint.names)


def has_weights(checkpoint: Checkpoint) -> bool:
    """Whether it holds the weights of a whole model, be it beside an adapter."""
    return not all(_is_lora(name) for name in checkpoint.names)


def alpha_of(checkpoint: Checkpoint, given: float | None) -> float:
    """LoRA alpha: as recorded, else as given. Raises ConfigError in one line where it is not known, or they differ."""
    recorded = checkpoint.adapter_record.get("lora_alpha")
    if recorded is None and given is None:
        raise ConfigError(
            f"{checkpoint.actor} does not record its LoRA alpha (no lora_train_meta.json); give the model's key "
            "`lora_alpha`: what actor_rollout_ref.model.lora_alpha was in training"
        )
    if recorded is not None and given is not None and recorded != given:
        raise ConfigError(f"`lora_alpha` is {given:g}, but {checkpoint.actor} records {recorded}; leave the key out")
    alpha = given if recorded is None else recorded
    if not isinstance(alpha, int | float) or not 0 < alpha < math.inf:
        raise DataError(f"{checkpoint.actor} records a LoRA alpha of {alpha!r}, with which an adapter has no effect")
    return alpha


def write_weights(checkpoint: Checkpoint, target: Path) -> None:
    """Write the checkpoint's weights, without its adapter, as a model's directory to `target`, an empty folder.

    Tensors are put together one after another and written in files of at most 4 GiB. Raises DataError for a broken
    checkpoint, OSError where `target` cannot be written.
    """
    names = {_plain(name): name for name in checkpoint.names if not _is_lora(name)}
    config = json.loads((checkpoint.huggingface / "config.json").read_text(encoding="utf-8"))
    if config.get("tie_word_embeddings") and len(names) > 1:
        names.pop("lm_head.weight", None)  # the embeddings under a second name; with both, transformers unties them
    files = _split({name: checkpoint.size(names[name]) for name in names})
    where: dict[str, str] = {}
    for number, inside in enumerate(files, start=1):
        file = f"model-{number:05d}-of-{len(files):05d}.safetensors"
        save({name: _own(checkpoint.tensor(names[name])) for name in inside}, target / file, {"format": "pt"})
        where.update(dict.fromkeys(inside, file))
    index = {"metadata": {}, "weight_map": where}
    (target / "model.safetensors.index.json").write_text(json.dumps(index, indent=1, sort_keys=True), encoding="utf-8")
    for path in checkpoint.files:
        if path.is_relative_to(checkpoint.huggingface) and not path.name.endswith(".index.json"):
            copy = target / path.relative_to(checkpoint.huggingface)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)


def write_adapter(checkpoint: Checkpoint, alpha: float, target: Path) -> None:
    """Write the checkpoint's adapter as PEFT does to `target`, an empty folder. Raises as `write_weights` does."""
    tensors = {
        name.replace(".default.weight", ".weight"): _own(checkpoint.tensor(name))
        for name in checkpoint.names
        if _is_lora(name)
    }
    record = checkpoint.adapter_record
    ranks = sorted({tensor.shape[0] for name, tensor in tensors.items() if name.endswith(".lora_A.weight")})
    if ranks != [record.get("r", *ranks[:1])]:
        raise DataError(f"{checkpoint.actor} has LoRA ranks {ranks} and records {record.get('r')}; it is broken")
    modules = {name.removeprefix(_PREFIX).rpartition(".lora_")[0] for name in tensors}
    settings: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": record.get("task_type") or "CAUSAL_LM",
        "base_model_name_or_path": None,
        "r": ranks[0],
        "lora_alpha": alpha,
        "target_modules": sorted(modules),
        "use_rslora": bool(record.get("use_rslora")),
        "lora_dropout": 0.0,
        "bias": "none",
        "inference_mode": True,
    }
    save(tensors, target / TENSORS, {"format": "pt"})
    (target / CONFIG).write_text(json.dumps(settings, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _is_lora(name: str) -> bool:
    return ".lora_" in name


def _plain(name: str) -> str:
    """Name of a weight in the model that PEFT wrapped."""
    return name.removeprefix(_PREFIX).replace(".base_layer.", ".")


def _split(sizes: Mapping[str, int]) -> list[list[str]]:
    """Names in files of at most 4 GiB, larger tensors alone."""
    files: list[list[str]] = []
    room = 0
    for name, size in sizes.items():
        if not files or size > room:
            files.append([])
            room = _FILE_BYTES
        files[-1].append(name)
        room -= size
    return files


def _own(tensor: Tensor) -> Tensor:
    """A tensor that shares no memory with another, as safetensors wants."""
    return tensor.detach().clone().contiguous()
