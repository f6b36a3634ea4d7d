"""Metrics of scored answers: correctness, specificity and their harmonic mean; the definitions go with every report.

The paper's exact formulas are not published, so these are ours and no parity with its table is claimed.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from speciarl.category import Category

UNPARSABLE = "unparsable"
"""The label under which a response without an answer is counted beside the six categories."""

DEFAULT_WEIGHTS: Mapping[Category, float] = {
    Category.GENERIC: 0.25,
    Category.LESS_SPECIFIC: 0.5,
    Category.SPECIFIC: 1.0,
    Category.MORE_SPECIFIC: 1.0,
}
"""Specificity of a correct answer, by category. WRONG and ABSTAIN take no part in it."""

DEFINITIONS = (
    "correctness = share of scored answers that are not wrong (unparsable counts as wrong, abstaining as not wrong); "
    "specificity = mean weight of the correct answers (generic 0.25, less specific 0.5, specific and more specific 1); "
    "HM = harmonic mean of the two, per dataset"
)


@dataclass(frozen=True, slots=True)
class Summary:
    """The metrics of one set of scored answers."""

    count: int
    """Scored answers, unparsable ones included, unscorable ones not."""
    rates: Mapping[str, float]
    """Share of each category, keyed by label with underscores, plus ``unparsable``; they sum to 1."""
    correctness: float
    """In [0, 1]."""
    specificity: float | None
    """In [0, 1]; None when no answer is generic or better."""
    hm: float
    """Harmonic mean of correctness and specificity; 0 when no answer is generic or better."""


def key(category: Category | None) -> str:
    """The metric key of a category (``less_specific``); None stands for an unparsable response."""
    return UNPARSABLE if category is None else category.name.lower()


def summarise(
    outcomes: Iterable[Category | None], weights: Mapping[Category, float] = DEFAULT_WEIGHTS
) -> Summary | None:
    """Metrics of scored answers, in any order; None in the iterable is an unparsable response.

    Unscorable answers must be left out by the caller. Returns None when there is no answer at all: no number would be
    true.
    """
    scored = list(outcomes)
    if not scored:
        return None
    rates = {key(kind): scored.count(kind) / len(scored) for kind in (*Category, None)}
    correctness = 1.0 - rates[key(Category.WRONG)] - rates[UNPARSABLE]
    graded = [weights[outcome] for outcome in scored if outcome is not None and outcome in weights]
    specificity = sum(graded) / len(graded) if graded else None
    return Summary(len(scored), rates, correctness, specificity, harmonic_mean(correctness, specificity))


def best_of(
    groups: Iterable[Sequence[Category | None]], k: int, weights: Mapping[Category, float] = DEFAULT_WEIGHTS
) -> Summary | None:
    """Metrics of the best of k answers to each question: what k tries would achieve with a perfect choice among them.

    Unbiased: of a question with m answers, all subsets of k are averaged over, in closed form. With the answers sorted,
    the i-th smallest (from 0) is the best of a share C(i, k - 1) / C(m, k) of them. An unparsable answer is the worst.
    Questions count alike; one with fewer than k answers says nothing about k tries and is left out.

    Returns None when no question has k answers. `count` is the number of questions that have.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    fit = [sorted(group, key=_rank) for group in groups if len(group) >= k]
    if not fit:
        return None
    totals = dict.fromkeys((*Category, None), 0.0)
    for group in fit:
        subsets = math.comb(len(group), k)
        for index in range(k - 1, len(group)):
            totals[group[index]] += math.comb(index, k - 1) / subsets
    rates = {key(kind): total / len(fit) for kind, total in totals.items()}
    correct = {kind: total for kind, total in totals.items() if kind is not None and kind in weights}
    share = sum(correct.values())
    specificity = sum(weights[kind] * total for kind, total in correct.items()) / share if share else None
    correctness = 1.0 - rates[key(Category.WRONG)] - rates[key(None)]
    return Summary(len(fit), rates, correctness, specificity, harmonic_mean(correctness, specificity))


def _rank(outcome: Category | None) -> int:
    return -1 if outcome is None else int(outcome)


def harmonic_mean(correctness: float, specificity: float | None) -> float:
    """2cs / (c + s); 0 when either is 0 or specificity is undefined."""
    if not specificity or not correctness:
        return 0.0
    return 2 * correctness * specificity / (correctness + specificity)
