"""Canary of an adapter: before the first image, the engine shows that it changes what the model says."""

from __future__ import annotations

from speciarl.errors import DataError

Logprobs = dict[int, float]
"""Log-probabilities (nats) of the likeliest first tokens of an answer to one fixed prompt, by token id."""


def logits_differ(base: Logprobs, again: Logprobs, adapted: Logprobs) -> bool:
    """Whether the adapter changes the first token, by more than asking the base model twice does."""
    return distance(base, adapted) > distance(base, again)


def prove(base: Logprobs, again: Logprobs, adapted: Logprobs, name: str) -> None:
    """Raise DataError in one line where the engine answers with the adapter as it does without."""
    if not logits_differ(base, again, adapted):
        raise DataError(
            f"{name}: the engine answers with the adapter exactly as without it; train it for longer, or set "
            "`merge: true` if the model's architecture has no LoRA support in vLLM"
        )


def distance(first: Logprobs, second: Logprobs) -> float:
    """Largest difference of a log-probability in nats. A token that only one side lists counts as the other side's
    least likely one, since it is at most as likely; two empty sides do not differ."""
    if not first or not second:
        return 0.0 if first == second else float("inf")
    least = min(first.values()), min(second.values())
    return max(abs(first.get(token, least[0]) - second.get(token, least[1])) for token in first.keys() | second.keys())
