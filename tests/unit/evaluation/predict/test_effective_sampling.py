"""Sampling fields come from the settings, the model's generation_config.json or vLLM, in that order."""

from speciarl.evaluation.config import SamplingConfig
from speciarl.evaluation.predict.sampling import resolve


def test_who_decides_a_field() -> None:
    sampling, origins = resolve(
        SamplingConfig(temperature=None, top_p=0.9, repetition_penalty=None, top_k=None),
        {"temperature": 1e-6, "top_p": 0.001, "repetition_penalty": 1.05},
    )
    assert (sampling.temperature, sampling.top_p, sampling.repetition_penalty) == (1e-6, 0.9, 1.05)
    assert origins["temperature"] == origins["repetition_penalty"] == "generation_config.json"
    assert origins["top_p"] == "sampling"
    assert (sampling.top_k, origins["top_k"]) == (0, "vLLM's default")


def test_whole_numbers_and_fractions_are_the_same_value() -> None:
    one, _ = resolve(SamplingConfig(temperature=1, top_k=None), {"top_k": 5.0})
    other, _ = resolve(SamplingConfig(temperature=1.0, top_k=None), {"top_k": 5})
    assert repr(one.as_dict()) == repr(other.as_dict())
