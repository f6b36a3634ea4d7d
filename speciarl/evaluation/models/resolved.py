"""Resolved model: the files that an engine loads, and the hashes of their content."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ResolvedModel:
    """A model, ready for an engine."""

    directory: Path
    """Of the weights: the base, merged or converted ones."""
    adapter: Path | None
    """PEFT adapter to serve beside them; None where there is none or it is merged."""
    adapter_rank: int | None
    """Its rank."""
    weights_sha: str
    """Hash of the content of every file that can change an answer."""
    adapter_sha: str | None
    """The same of the adapter."""
    generation: Mapping[str, Any]
    """Fields of generation_config.json."""
    described: str
    """One line for people."""
