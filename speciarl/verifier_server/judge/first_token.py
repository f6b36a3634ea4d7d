"""First-token decoding: computes label probabilities from the log-probabilities of a reply's first token."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from speciarl.verdict import Source, Verdict
from speciarl.verifier_server.judge.labels import SIX, Scheme

BIAS = 12.0
"""Bias on the logits of the labels' first tokens, in nats. Large enough that only a label of less than a
hundred-thousandth of the labels' probability is crowded out of the likeliest tokens; small enough that the probability
of all other tokens, e^12 times smaller than before, still shows in 32-bit numbers."""

FORCE = 100.0
"""The same to force one label, whatever the judge thinks of the pair: the most that vLLM takes."""

_TOKEN_ID = "token_id:"
_LEAST, _MOST = -9998.0, 0.01
"""Bounds of a log-probability. vLLM writes -9999 for minus infinity: the token was forbidden, so that the labels' share
is unknown. What lies above 0 by more than rounding is a logit."""


def verdict_from_logprobs(logprobs: Sequence[float], scheme: Scheme = SIX) -> Verdict:
    """The verdict from one log-probability per label, in the label set's order; a common shift has no effect. A tie
    goes to the worse label, which comes first."""
    best = max(range(len(logprobs)), key=lambda index: logprobs[index])
    margin = logprobs[best] - max(value for index, value in enumerate(logprobs) if index != best)
    weights = [math.exp(value - logprobs[best]) for value in logprobs]
    total = sum(weights)
    return Verdict(
        category=scheme.categories[best],
        margin=margin,
        source=Source.LIVE,
        probabilities=scheme.spread([weight / total for weight in weights]),
    )


def verdict_from_top(
    chosen: int, logprobs: Sequence[float | None], floor: float | None, scheme: Scheme = SIX
) -> Verdict:
    """The verdict for the label of index `chosen` when only the most likely tokens were reported.

    `logprobs` has one entry per label, None where unreported; such a label lies at or below `floor`, the least reported
    value. With the runner-up unreported the margin is a lower bound, and probabilities are left out.
    """
    known = [value for value in logprobs if value is not None]
    if len(known) == len(logprobs):
        full = verdict_from_logprobs(known, scheme)
        if full.category == scheme.categories[chosen]:
            return full
    best = logprobs[chosen]
    others = [value for index, value in enumerate(logprobs) if index != chosen and value is not None]
    runner_up = max(others, default=floor)
    margin = None if best is None or runner_up is None else max(best - runner_up, 0.0)
    return Verdict(category=scheme.categories[chosen], margin=margin, source=Source.LIVE)


def label_mass(logprobs: Mapping[int, float], first_tokens: Sequence[int]) -> float:
    """Label mass: total probability of the labels' first tokens, in [0, 1]; a lower bound where some are unreported.

    Near 1 for a judge that means to answer with a label; small when it would rather say something else.
    """
    return min(sum(math.exp(logprobs[token]) for token in first_tokens if token in logprobs), 1.0)


def biased_mass(logprobs: Mapping[int, float], first_tokens: Sequence[int]) -> float:
    """Label mass of the unbiased model: undoes BIAS on the labels' logits and the normalisation after it.

    Accurate to a few hundredths where labels and all others are equally likely, and better below.
    """
    # The biased mass is near 1 for almost any judge, and would hide one that is about to say something else.
    labels = sum(math.exp(logprobs[token]) for token in first_tokens if token in logprobs)
    listed = sum(math.exp(value) for token, value in logprobs.items() if token not in first_tokens)
    others = max(1.0 - labels, listed)  # the difference is rounding error where the labels have nearly all
    before = labels * math.exp(-BIAS)
    return before / (before + others)


def reported_logprobs(choice: Mapping[str, Any]) -> tuple[int, dict[int, float]] | None:
    """The generated token's id and all reported log-probabilities of its position, by token id; None if
    unreadable, or if these are no log-probabilities of the whole vocabulary."""
    try:
        position = choice["logprobs"]["content"][0]
        chosen = _token_id(position["token"])
        logprobs = {_token_id(entry["token"]): float(entry["logprob"]) for entry in position["top_logprobs"]}
        logprobs.setdefault(chosen, float(position["logprob"]))
    except (KeyError, IndexError, TypeError, ValueError, OverflowError):
        return None
    return (chosen, logprobs) if all(_LEAST <= value <= _MOST for value in logprobs.values()) else None


def first_difference(prompt: Sequence[int], continued: Sequence[int]) -> int | None:
    """The first token of a text that continues a prompt; None when the prompt's tokens are no prefix or
    nothing follows."""
    if len(continued) <= len(prompt) or list(continued[: len(prompt)]) != list(prompt):
        return None
    return continued[len(prompt)]


def clashing_labels(first_tokens: Sequence[int], labels: Sequence[str] = SIX.labels) -> list[tuple[str, ...]]:
    """Groups of labels that begin with the same token; empty when first-token judging is possible."""
    by_token: dict[int, list[str]] = {}
    for label, token in zip(labels, first_tokens, strict=True):
        by_token.setdefault(token, []).append(label)
    return [tuple(group) for group in by_token.values() if len(group) > 1]


def describe_clash(first_tokens: Sequence[int], scheme: Scheme) -> str | None:
    """One line on labels that begin with the same token; None when all differ."""
    groups = clashing_labels(first_tokens, scheme.labels)
    if not groups:
        return None
    listed = " and ".join("/".join(repr(label) for label in group) for group in groups)
    return f"the labels {listed} begin with the same token, so the first token cannot tell them apart"


def _token_id(text: object) -> int:
    if not (isinstance(text, str) and text.startswith(_TOKEN_ID)):
        raise ValueError(f"{text!r} is no token id")
    return int(text[len(_TOKEN_ID) :])
