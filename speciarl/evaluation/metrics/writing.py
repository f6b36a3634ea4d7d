"""Writing: how responses are written and how their answers match the truth as texts; no judge takes part."""

from __future__ import annotations

from speciarl.answer import names_several, normalise
from speciarl.evaluation.metrics.metric import Family, mean_family
from speciarl.evaluation.metrics.responses import Responses


def families(responses: Responses, max_tokens: int) -> list[Family]:
    """Parse failures, hedging, cap hits, lengths, text inclusion and exact match; one family each."""
    predicted, answered = responses.predicted, responses.pair >= 0
    known, missing = predicted & (responses.tokens >= 0), ~predicted

    def of(name: str, numbers: object, counted: object = predicted, span: object = (0.0, 1.0)) -> Family:
        return mean_family(name, DEFINITIONS[name], numbers, counted, missing, span)  # type: ignore[arg-type]

    return [
        of("text_inclusion", responses.of_pairs(lambda truth, answer: truth.lower() in answer.lower())),
        of("exact_match", responses.of_pairs(lambda truth, answer: normalise(truth) == normalise(answer))),
        of("parse_failures", predicted & ~answered),
        of("hedging", responses.of_pairs(lambda truth, answer: names_several(answer))),
        of("cap_hits", responses.capped, predicted & responses.ended),
        of("tokens", responses.tokens, known, (0.0, float(max_tokens))),
        of("words", responses.of_pairs(lambda truth, answer: len(answer.split())), predicted & answered, (1.0, None)),
    ]


DEFINITIONS = {
    "text_inclusion": "Share of responses whose answer holds the ground truth, both in lower case; a response without "
    "an answer holds nothing.",
    "exact_match": "Share of responses whose answer is the ground truth, both normalised.",
    "parse_failures": "Share of responses that hold no answer.",
    "hedging": "Share of responses whose answer seems to name several options, by its words and marks.",
    "cap_hits": "Share of responses that the cap on tokens cut off, where it is known how they ended.",
    "tokens": "Mean length of responses in tokens.",
    "words": "Mean length of answers in words, where there is one.",
}
