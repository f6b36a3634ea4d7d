"""Canary of an adapter: before the first image, the engine shows that it changes what the model says."""

from __future__ import annotations

from typing import Protocol

from speciarl.errors import DataError


class AdapterEngine(Protocol):
    """Engine that answers one fixed prompt with or without the adapter."""

    def first_token_logprobs(self, adapter: bool) -> dict[int, float]:
        """Log-probabilities of the likeliest first tokens, by token id."""
        ...


def logits_differ(engine: AdapterEngine) -> bool:
    """Whether the adapter changes the first token's log-probabilities by more than asking the base twice does."""
    base = engine.first_token_logprobs(adapter=False)
    noise = distance(base, engine.first_token_logprobs(adapter=False))
    return distance(base, engine.first_token_logprobs(adapter=True)) > noise


def prove(engine: AdapterEngine, name: str) -> None:
    """Raise DataError in one line where the engine answers with the adapter as it does without."""
    if not logits_differ(engine):
        raise DataError(
            f"{name}: the engine answers with the adapter exactly as without it; train it for longer, or set "
            "`merge: true` if the model's architecture has no LoRA support in vLLM"
        )


def distance(first: dict[int, float], second: dict[int, float]) -> float:
    """Largest difference of a log-probability in nats. A token that only one side lists counts as the other side's
    least likely one, since it is at most as likely; two empty sides do not differ."""
    if not first or not second:
        return 0.0 if first == second else float("inf")
    least = min(first.values()), min(second.values())
    return max(abs(first.get(token, least[0]) - second.get(token, least[1])) for token in first.keys() | second.keys())
