"""Merging: a LoRA adapter added to the weights of its base model, file by file, so that memory holds one of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from speciarl.errors import DataError
from speciarl.evaluation.models.adapter import Adapter
from speciarl.evaluation.models.fingerprint import model_files
from speciarl.evaluation.models.weights import broken, canonical, save, weights

METHOD = "W + scale * B A in float32, rounded once to the wider of its own type and the model's"
"""How weights are merged; part of the hash of what comes out."""


def merge(base: Path, adapter: Adapter, target: Path) -> None:
    """Write the model `base` with the adapter in its weights to `target`, an empty folder.

    Each weight that the adapter changes becomes W + scale x B A, computed in float32. It is rounded to its own type, or
    to the one in config.json where that is wider: a small update would be lost in weights that are stored in bfloat16
    for a float32 model. Raises DataError in one line where adapter and base do not fit, OSError where `target` cannot
    be written.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    if "quantization_config" in config:
        raise DataError(f"{base} is quantised, so that nothing can be added to its weights; leave `merge` out")
    if config.get("tie_word_embeddings") and any(canonical(module) == "lm_head" for module in adapter.matrices):
        raise DataError(
            f"{base} has one matrix for lm_head and embeddings, to which no adapter of lm_head can be added"
        )
    said = str(config.get("dtype") or config.get("torch_dtype") or "")
    dtype = getattr(torch, said.removeprefix("torch."), None)
    found = weights(base)
    changed = {weight: module for module, weight in adapter.targets(found).items()}
    for name, tensors in found.files.items():
        merged: dict[str, torch.Tensor] = {}
        try:
            with safe_open(base / name, framework="pt") as opened:
                metadata = opened.metadata()
                for tensor in tensors:
                    merged[tensor] = opened.get_tensor(tensor)
        except (OSError, SafetensorError) as error:
            raise broken(base / name, error) from error
        for tensor in tensors:
            if tensor in changed:
                a, b = adapter.matrices[changed[tensor]]
                scale = adapter.scales[changed[tensor]]
                own = merged[tensor].dtype
                kept = torch.promote_types(own, dtype) if isinstance(dtype, torch.dtype) else own
                merged[tensor] = merged[tensor].float().addmm_(b.float(), a.float(), alpha=scale).to(kept)
        save(merged, target / name, metadata)
    for file in model_files(base):
        copy = target / file.relative_to(base)
        if file.name not in found.files:
            copy.parent.mkdir(exist_ok=True)
            shutil.copyfile(file, copy)
