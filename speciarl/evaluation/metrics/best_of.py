"""Best of k: what k tries at a question would achieve with a perfect choice among them, for k = 1, 2, …, n.

Unbiased, as `speciarl.metrics.best_of` defines it: the mean over all subsets of k of a question's scored answers. Also
the plain best of all n, and which answer that is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from speciarl.evaluation.config import MetricsConfig
from speciarl.evaluation.metrics.metric import Bounds, Family, Floats, Metric, number
from speciarl.evaluation.metrics.scores import Grading, counts, definitions, harmonic_mean, main_metrics
from speciarl.evaluation.outcome import Outcome

PLAIN = "best/"
"""What names of metrics of the plain best of all answers begin with."""


def best_index(outcomes: NDArray[np.int8]) -> NDArray[np.int64]:
    """Index of the best answer to each question, shape (questions,), from shape (questions, n).

    The first of several equal ones; -1 where none is scored.
    """
    if not outcomes.size:
        return np.full(len(outcomes), -1, np.int64)
    return np.where(outcomes.max(1) == Outcome.UNSCORED, -1, outcomes.argmax(1))


def expected_counts(outcomes: NDArray[np.int8]) -> Iterator[Floats]:
    """For k = 1, …, n, how likely each outcome is to be the best of k answers to each question: shape (questions, 9).

    From outcomes of shape (questions, n). Rows sum to 1, or to 0 where fewer than k answers are scored.

    Of m scored answers c are no better than an outcome, and so is the best of k in C(c, k) of C(m, k) subsets. That
    share follows from the one before by a factor (c - k + 1) / (m - k + 1).
    """
    no_better = counts(outcomes)[:, 1:].cumsum(1)
    share = np.ones_like(no_better)
    for k in range(1, outcomes.shape[1] + 1):
        left = np.maximum(no_better - (k - 1), 0)
        all_left = left[:, -1:]
        share = np.divide(share * left, all_left, out=np.zeros_like(share), where=all_left > 0)
        yield np.diff(share, prepend=np.zeros((len(share), 2)))


def families(config: MetricsConfig, outcomes: NDArray[np.int8]) -> Iterator[Family]:
    """Correctness, specificity and HM of the best of k, for k = 1, …, n; to be used one after another."""
    metrics = _metrics(Grading.of(config), definitions(config))
    complete = bool((outcomes != Outcome.UNSCORED).all())
    extremes = zip(*(expected_counts(end) for end in _extremes(outcomes, config)), strict=True)
    for expected in expected_counts(outcomes):
        ends = (expected,) * 3 if complete else next(extremes)
        yield _family(expected, ends, metrics)


def plain_family(config: MetricsConfig, outcomes: NDArray[np.int8]) -> Family:
    """Correctness, specificity and HM of the best scored answer to each question."""
    ends = tuple(counts(end.max(1, keepdims=True)) for end in _extremes(outcomes, config))
    return _family(
        counts(outcomes.max(1, keepdims=True)), ends, _metrics(Grading.of(config), definitions(config), PLAIN)
    )


def _family(features: Floats, ends: tuple[Floats, ...], metrics: tuple[Metric, ...]) -> Family:
    extremes = np.stack([end.sum(0) for end in ends])
    return Family(features, metrics, extremes)


def _extremes(outcomes: NDArray[np.int8], config: MetricsConfig) -> tuple[NDArray[np.int8], ...]:
    """The outcomes with every unscored answer wrong; of the lowest weight; of the highest category."""
    return tuple(
        np.where(outcomes == Outcome.UNSCORED, np.int8(assumed), outcomes)
        for assumed in (Outcome.WRONG, Outcome.GENERIC, Outcome.MORE_SPECIFIC)
    )


def _metrics(grading: Grading, defined: dict[str, str], prefix: str = "") -> tuple[Metric, ...]:
    """The main metrics, with bounds from counts of shape (3, 9): unscored answers as `_extremes` assumes them.

    All wrong is worst for correctness. For specificity, all generic is worst: whatever the other answers of a subset,
    its best then is of the lowest weight that it can be, as long as weights rise with categories; if they do not, the
    bounds are those of the weights. HM is bounded by the two together, which may be more than it can fall.
    """
    correctness, specificity, hm = main_metrics(grading, defined, prefix)
    rising = bool((np.diff(grading.weights) >= 0).all())

    def correctness_ends(ends: Floats) -> Floats:
        return grading.correctness(ends)[[0, 2]]

    def specificity_ends(ends: Floats) -> Floats:
        if not rising and (ends[0] != ends[2]).any():
            return np.array([grading.weights.min(), grading.weights.max()])
        return grading.specificity(ends)[1:]

    def hm_ends(ends: Floats) -> Floats:
        low, high = harmonic_mean(correctness_ends(ends), np.nan_to_num(specificity_ends(ends)))
        all_wrong = grading.specificity(ends)[0]
        return np.array([0 if np.isnan(all_wrong) else low, high])  # HM is 0 where no answer is graded

    def bounds(of: Callable[[Floats], Floats], ends: Floats) -> Bounds:
        low, high = of(ends)
        return number(low), number(high)

    return (
        replace(correctness, bounds=partial(bounds, correctness_ends)),
        replace(specificity, bounds=partial(bounds, specificity_ends)),
        replace(hm, bounds=partial(bounds, hm_ends)),
    )
