"""Scores: correctness, specificity, their harmonic mean, rates of outcomes and average points, from counts of outcomes.

The paper's exact formulas are not published, so these are ours and no parity with its table is claimed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from speciarl.evaluation.config import MetricsConfig
from speciarl.evaluation.metrics.metric import Bounds, Family, Floats, Metric, number, ratio
from speciarl.evaluation.outcome import SCORED, Outcome

COLUMNS = len(Outcome)
MAIN = ("correctness", "specificity", "hm")
"""The three by which models are compared."""
_NO_ANSWER = (Outcome.TOO_LONG, Outcome.UNPARSABLE)


def column(outcome: Outcome) -> int:
    """Its place in counts."""
    return outcome - Outcome.UNSCORED


def counts(outcomes: NDArray[np.int8]) -> Floats:
    """Number of answers with each outcome, shape (questions, 9), unscored first, from shape (questions, n)."""
    questions = len(outcomes)
    cells = np.arange(questions)[:, None] * COLUMNS + (outcomes.astype(np.int64) - Outcome.UNSCORED)
    flat = np.bincount(cells.ravel(), minlength=questions * COLUMNS)
    return flat.reshape(questions, COLUMNS).astype(np.float64)


@dataclass(frozen=True)
class Grading:
    """What each outcome is worth: vectors of shape (9,), unscored first."""

    scored: Floats
    correct: Floats
    graded: Floats
    """1 for outcomes that take part in specificity."""
    weight: Floats
    points: Floats

    @classmethod
    def of(cls, config: MetricsConfig) -> Grading:
        """The grading that a configuration defines."""
        wrong = {*_NO_ANSWER, Outcome.WRONG, *([Outcome.ABSTAIN] if config.abstain_is_wrong else [])}
        scored, correct, graded, weight, points = np.zeros((5, COLUMNS))
        for outcome in SCORED:
            at = column(outcome)
            scored[at], correct[at] = 1, outcome not in wrong
            graded[at], weight[at] = outcome.key in config.weights, config.weights.get(outcome.key, 0)
            points[at] = config.scores[outcome.key]
        return cls(scored, correct, graded, weight, points)

    @property
    def weights(self) -> Floats:
        """Weights of the outcomes that take part in specificity, worst outcome first."""
        return self.weight[self.graded > 0]

    def correctness(self, sums: Floats) -> Floats:
        """Share of correct answers, from counts of shape (..., 9)."""
        return ratio(sums @ self.correct, sums @ self.scored)

    def specificity(self, sums: Floats) -> Floats:
        """Mean weight of the graded answers, from counts of shape (..., 9); NaN where there is none."""
        return ratio(sums @ self.weight, sums @ self.graded)

    def hm(self, sums: Floats) -> Floats:
        """Harmonic mean of both, from counts of shape (..., 9); 0 where no answer is graded."""
        return harmonic_mean(self.correctness(sums), np.nan_to_num(self.specificity(sums)))

    def score(self, sums: Floats) -> Floats:
        """Mean points, from counts of shape (..., 9)."""
        return ratio(sums @ self.points, sums @ self.scored)

    def correctness_bounds(self, sums: Floats) -> Bounds:
        """Every unscored answer wrong; every one correct."""
        return _share_bounds(sums @ self.correct, sums)

    def specificity_bounds(self, sums: Floats) -> Bounds:
        """Every unscored answer of the lowest weight, or of the highest, if that changes the mean to that side."""
        weighted, graded, unscored = sums @ self.weight, sums @ self.graded, sums[0]
        taking_part = np.array([0.0, unscored])
        low, high = (
            ratio(weighted + taking_part * extreme, graded + taking_part)
            for extreme in (self.weights.min(), self.weights.max())
        )
        if np.isnan(low).all():
            return None, None
        return number(np.nanmin(low)), number(np.nanmax(high))

    def hm_bounds(self, sums: Floats) -> Bounds:
        """The worst split of unscored answers between wrong and lowest weight; every one of the highest weight.

        An answer of the lowest weight raises correctness and may lower specificity, so neither extreme need be worst.
        """
        weighted, graded, unscored = sums @ self.weight, sums @ self.graded, sums[0]
        total = sums.sum()
        if not total:
            return None, None
        right = np.arange(unscored + 1)
        low, high = (
            harmonic_mean(
                (sums @ self.correct + right) / total,
                np.nan_to_num(ratio(weighted + right * extreme, graded + right)),
            )
            for extreme in (self.weights.min(), self.weights.max())
        )
        return number(low.min()), number(high[-1])

    def score_bounds(self, sums: Floats) -> Bounds:
        """Every unscored answer of the fewest points; of the most."""
        points = self.points[1:]
        total = np.asarray(sums.sum())
        low, high = (ratio(sums @ self.points + extreme * sums[0], total) for extreme in (points.min(), points.max()))
        return number(low), number(high)


def harmonic_mean(one: Floats, other: Floats) -> Floats:
    """2ab / (a + b), of equal shapes; 0 where both are 0."""
    both = one + other
    mean = np.where(np.isnan(both), np.nan, 0.0)
    np.divide(2 * one * other, both, out=mean, where=both > 0)
    return mean


def family(config: MetricsConfig, outcomes: NDArray[np.int8]) -> Family:
    """All scores of single answers, of outcomes of shape (questions, n)."""
    grading, defined = Grading.of(config), definitions(config)
    main = main_metrics(grading, defined)
    span = (min(config.scores.values()), max(config.scores.values()))
    score = Metric("score", defined["score"], grading.score, grading.score_bounds, span)
    rates = tuple(_rate(outcome, defined[f"rate/{outcome.key}"], grading) for outcome in reversed(SCORED))
    return Family(counts(outcomes), (*main, score, *rates))


def main_metrics(grading: Grading, defined: dict[str, str], prefix: str = "") -> tuple[Metric, Metric, Metric]:
    """Correctness, specificity and HM of counts of outcomes."""
    return (
        Metric(prefix + "correctness", defined["correctness"], grading.correctness, grading.correctness_bounds),
        Metric(prefix + "specificity", defined["specificity"], grading.specificity, grading.specificity_bounds),
        Metric(prefix + "hm", defined["hm"], grading.hm, grading.hm_bounds),
    )


def definitions(config: MetricsConfig) -> dict[str, str]:
    """What each score is, in a sentence, with the weights and the rule for abstentions in it."""
    weights = ", ".join(f"{name.replace('_', ' ')} {weight:g}" for name, weight in _by_outcome(config.weights))
    points = ", ".join(f"{name.replace('_', ' ')} {points:g}" for name, points in _by_outcome(config.scores))
    abstaining = "wrong" if config.abstain_is_wrong else "not wrong"
    defined = {
        "correctness": "Share of scored answers that are not wrong; a response without an answer and an answer longer "
        f"than {config.too_long_chars} characters count as wrong, abstaining as {abstaining}.",
        "specificity": f"Mean weight of the right answers ({weights}); other answers take no part.",
        "hm": "Harmonic mean of correctness and specificity, per data set; 0 where no answer is right.",
        "score": f"Mean points of scored answers ({points}).",
    }
    for outcome in reversed(SCORED):
        named = f", longer than {config.too_long_chars} characters" if outcome is Outcome.TOO_LONG else ""
        defined[f"rate/{outcome.key}"] = f"Share of scored answers that are {_described(outcome)}{named}."
    return defined


def _described(outcome: Outcome) -> str:
    return {Outcome.ABSTAIN: "abstentions"}.get(outcome, outcome.label)


def _by_outcome(values: dict[str, float]) -> list[tuple[str, float]]:
    return [(outcome.key, values[outcome.key]) for outcome in reversed(SCORED) if outcome.key in values]


def _share_bounds(part: Floats, sums: Floats) -> Bounds:
    total = np.asarray(sums.sum())
    return number(ratio(part, total)), number(ratio(part + sums[0], total))


def _rate(outcome: Outcome, definition: str, grading: Grading) -> Metric:
    at = column(outcome)
    return Metric(
        f"rate/{outcome.key}",
        definition,
        lambda sums: ratio(sums[..., at], sums @ grading.scored),
        lambda sums: _share_bounds(np.asarray(sums[at]), sums),
    )
