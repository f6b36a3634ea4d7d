"""Hashing and merging a model: bytes per second, and the memory that merging takes beside its largest file.

python benchmarks/evaluation/merging.py --gigabytes 2
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

from speciarl.evaluation.config import ModelConfig
from speciarl.evaluation.models import identify

HIDDEN, RANK, PER_FILE = 4096, 64, 8


def main() -> None:
    """Make a model of square layers in bfloat16 and an adapter for each of them; print what it takes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    layers = max(PER_FILE, int(parser.parse_args().gigabytes * 1e9 / (2 * HIDDEN**2)))
    with tempfile.TemporaryDirectory() as folder:
        base, adapter = Path(folder, "base"), Path(folder, "adapter")
        largest = _write(base, adapter, layers)
        before = _peak()
        started = time.monotonic()
        config = ModelConfig(path=str(base), adapter=str(adapter), merge=True)
        model = identify(config, print)
        hashed = time.monotonic()
        size = sum(file.stat().st_size for file in base.iterdir())
        model.prepare(Path(folder, "cache"), print)
        merged = time.monotonic()
        print(f"{size / 1e9:.1f} GB in {layers} layers, rank {RANK}; {torch.get_num_threads()} threads")
        print(f"hashing: {size / 1e9 / (hashed - started):.2f} GB/s ({model.weights_sha.partition(':')[0]})")
        print(f"merging, and hashing what comes out: {size / 1e9 / (merged - hashed):.2f} GB/s")
        print(f"memory: {(_peak() - before) / largest:.1f} x the largest file ({largest / 1e9:.2f} GB)")


def _write(base: Path, adapter: Path, layers: int) -> int:
    base.mkdir()
    adapter.mkdir()
    (base / "config.json").write_text("{}")
    names = [f"model.layers.{number}.proj" for number in range(layers)]
    for start in range(0, layers, PER_FILE):
        inside = {f"{name}.weight": torch.randn(HIDDEN, HIDDEN).bfloat16() for name in names[start : start + PER_FILE]}
        save_file(inside, base / f"model-{start:05d}.safetensors", metadata={"format": "pt"})
    matrices = {f"base_model.model.{name}.lora_A.weight": torch.randn(RANK, HIDDEN) for name in names}
    matrices |= {f"base_model.model.{name}.lora_B.weight": torch.randn(HIDDEN, RANK) for name in names}
    save_file(matrices, adapter / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": RANK, "lora_alpha": 32, "target_modules": ["proj"]}
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    return max(file.stat().st_size for file in base.iterdir())


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
