"""Correction of a run's numbers by a judge's confusion matrix: what they would be by a judge that does not err.

A judge that puts a share P[i, j] of the answers of category i into category j turns true rates t into the rates t @ P
that it reports. Found are the rates t, none negative and of the same sum, whose image is closest to what was reported
(least squares). That holds as far as the run's answers of a category are confused as the gold pairs of it are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from speciarl.category import Category
from speciarl.evaluation.calibrate.agreement import SIZE, channel, confusion_by_truth
from speciarl.evaluation.calibrate.judged import Judged
from speciarl.evaluation.calibrate.proportion import bootstrapped
from speciarl.evaluation.config import BootstrapConfig, MetricsConfig
from speciarl.evaluation.metrics.bootstrap import draw_sums
from speciarl.evaluation.metrics.metric import Floats, number
from speciarl.evaluation.metrics.scores import Grading, column
from speciarl.evaluation.outcome import Outcome
from speciarl.evaluation.results import Estimate

_FIRST = column(Outcome.WRONG)
"""Where the six categories begin among the nine outcomes; the others are told without a judge."""
LEAST_SEPARATION = 0.02
"""Smallest singular value of a confusion matrix that is inverted; below it errors would grow fiftyfold."""
_WEIGHT_OF_SUM = 1e3


@dataclass(frozen=True)
class Corrected:
    """HM of a run as judged and as corrected, both with intervals."""

    reported: Estimate
    corrected: Estimate
    rates: tuple[float | None, ...]
    """Corrected shares of the six categories among scored answers; of None where there is no correction."""
    why_not: str = ""
    """Why there is no correction."""


def unmix(reported: Floats, confusion: Floats) -> Floats:
    """True amounts of the six categories, shape (6,), from reported ones and P(verdict | category), shape (6, 6).

    None is negative, and they have the sum of the reported ones.
    """
    total = reported.sum()
    if not total:
        return np.zeros(SIZE)
    system = np.vstack([confusion.T, np.full((1, SIZE), _WEIGHT_OF_SUM)])
    found, _ = nnls(system, np.append(reported / total, _WEIGHT_OF_SUM))
    return np.asarray(found / found.sum() * total)


def correct(
    calibration: Judged, by_class: Floats, metrics: MetricsConfig, config: BootstrapConfig, stream: str
) -> Corrected:
    """HM of a run, corrected.

    `by_class` are its outcomes, unscored first, by class, shape (classes, 9). Each draw of the interval takes truths of
    the calibration and classes of the run with replacement. `stream` names the data set, so that models are paired.
    """
    grading, by_truth = Grading.of(metrics), confusion_by_truth(calibration)
    drawn_runs = draw_sums(by_class, config, stream)
    hm = float(grading.hm(by_class.sum(0)))
    reported = bootstrapped(hm, grading.hm(drawn_runs), len(by_class), config.level)
    confusion = channel(by_truth.sum(0).reshape(SIZE, SIZE))
    why_not = _hindrance(confusion)
    if why_not or np.isnan(hm):
        return Corrected(reported, Estimate(None), (None,) * SIZE, why_not or "the run has no scored answers")
    drawn_confusions = channel(draw_sums(by_truth, config, "calibration").reshape(-1, SIZE, SIZE))
    draws = np.array(
        [
            np.nan if np.isnan(matrix).any() else grading.hm(_corrected(sums, matrix))
            for sums, matrix in zip(drawn_runs, drawn_confusions, strict=True)
        ]
    )
    sums = _corrected(by_class.sum(0), confusion)
    clusters = min(len(by_class), len(by_truth))
    value = bootstrapped(float(grading.hm(sums)), draws, clusters, config.level)
    return Corrected(reported, value, tuple(number(rate) for rate in sums[_FIRST:] / sums[1:].sum()))


def _corrected(sums: Floats, confusion: Floats) -> Floats:
    """Counts of outcomes, shape (9,), with those of the six categories corrected."""
    return np.concatenate([sums[:_FIRST], unmix(sums[_FIRST:], confusion)])


def _hindrance(confusion: Floats) -> str:
    missing = [category.label for category in Category if np.isnan(confusion[category]).any()]
    if missing:
        return f"no gold pair is {' or '.join(missing)}"
    if np.linalg.svd(confusion, compute_uv=False).min() < LEAST_SEPARATION:
        return "the judge hardly tells some categories apart"
    return ""
