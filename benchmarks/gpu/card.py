"""The GPU and the software on it, by what a table of figures has to name.

Asked of `nvidia-smi`, as torch would take memory of the card for the answer.
"""

import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata, util

PACKAGES = ("torch", "transformers", "vllm", "verl", "ray", "peft", "flash-attn")
FIELDS = ("name", "memory.total", "compute_cap", "driver_version")
TIMEOUT_S = 30


@dataclass(frozen=True)
class Card:
    """One GPU."""

    place: str
    """What CUDA_VISIBLE_DEVICES calls it."""
    name: str
    memory_gib: float
    capability: str
    driver: str


def place(environment: Mapping[str, str]) -> str:
    """The first GPU that the environment lets a process see; empty where it hides all."""
    return environment.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()


def find() -> Card | None:
    """The first visible GPU that this torch can use; None where there is none."""
    import torch

    where = place(os.environ)
    if not where or torch.version.cuda is None or not torch.cuda.is_available():
        return None
    answer = _ask(where, FIELDS)
    return parse(where, answer) if answer else None


def parse(where: str, answer: str) -> Card:
    """A card from the answer of `nvidia-smi` to `FIELDS`, as one line of CSV without units."""
    name, memory, capability, driver = (part.strip() for part in answer.rsplit(",", 3))
    return Card(where, name, float(memory) / 1024, capability, driver)


def used_gib(where: str) -> float:
    """Memory in use on the card, by whatever process; 0 where nobody can say."""
    answer = _ask(where, ["memory.used"])
    return float(answer) / 1024 if answer and answer.replace(".", "", 1).isdigit() else 0.0


def has_flash_attention() -> bool:
    """Whether flash-attention is installed, which packing needs."""
    return util.find_spec("flash_attn") is not None


def versions() -> str:
    """Python and the packages that decide the figures, in one line."""
    found = [f"Python {platform.python_version()}"]
    for package in PACKAGES:
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            found.append(f"no {package}")
    return ", ".join(found)


def _ask(where: str, fields: tuple[str, ...] | list[str]) -> str | None:
    smi = shutil.which("nvidia-smi")
    if smi is None:
        return None
    words = [smi, f"--id={where}", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT_S, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.strip().splitlines()[0] if answer.strip() else None
