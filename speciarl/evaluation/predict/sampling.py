"""Sampling as it takes effect: every field has a value, whoever it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from speciarl.evaluation.config import SamplingConfig

VLLM_DEFAULTS: Mapping[str, float] = {
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
"""What vLLM takes for a field that nobody gives (vllm/sampling_params.py)."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """All fields that change an answer; their number and seeds do not belong here."""

    temperature: float
    top_p: float
    top_k: int
    min_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    max_tokens: int

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is taken, so that there is only one answer."""
        return self.temperature == 0

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for keys and reports."""
        return asdict(self)


def resolve(config: SamplingConfig, generation: Mapping[str, Any]) -> tuple[Sampling, dict[str, str]]:
    """The sampling that takes effect, and where each field comes from.

    `generation` holds the fields of the model's generation_config.json, which count where the configuration gives None.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for name, default in VLLM_DEFAULTS.items():
        given, of_model = getattr(config, name), generation.get(name)
        if given is not None:
            values[name], origins[name] = given, "sampling"
        elif of_model is not None:
            values[name], origins[name] = of_model, "generation_config.json"
        else:
            values[name], origins[name] = default, "vLLM's default"
        values[name] = type(default)(values[name])  # so that 1 and 1.0 give the same key
    return Sampling(max_tokens=config.max_tokens, **values), origins | {"max_tokens": "sampling"}
