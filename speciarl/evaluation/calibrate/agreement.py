"""Agreement of a judge with the gold categories: confusion matrix, kappa, precision and recall."""

from __future__ import annotations

import numpy as np

from speciarl.category import Category
from speciarl.evaluation.calibrate.judged import Judged
from speciarl.evaluation.calibrate.proportion import bootstrapped, proportion
from speciarl.evaluation.config import BootstrapConfig
from speciarl.evaluation.metrics.bootstrap import draw_sums
from speciarl.evaluation.metrics.metric import Floats, ratio
from speciarl.evaluation.results import Estimate

SIZE = len(Category)
_STEPS = np.abs(np.subtract.outer(np.arange(SIZE), np.arange(SIZE))).astype(np.float64)
PLAIN = (_STEPS > 0).astype(np.float64)
"""Cost of each confusion where all count alike."""
QUADRATIC = (_STEPS / (SIZE - 1)) ** 2
"""Cost of each confusion by the square of its steps on the ladder of categories."""


def confusion(judged: Judged) -> Floats:
    """Number of scored pairs by gold category and verdict, shape (6, 6)."""
    return np.reshape(confusion_by_truth(judged).sum(0), (SIZE, SIZE))


def confusion_by_truth(judged: Judged) -> Floats:
    """The same for the pairs of each truth, shape (truths, 36)."""
    scored = judged.scored
    counts = np.zeros((int(judged.truths.max()) + 1, SIZE * SIZE))
    np.add.at(counts, (judged.truths[scored], judged.gold[scored] * SIZE + judged.said[scored]), 1)
    return counts


def channel(counts: Floats) -> Floats:
    """P(verdict | gold category) from counts of shape (..., 6, 6): each row sums to 1, or is NaN without a pair."""
    return ratio(counts, counts.sum(-1, keepdims=True))


def kappa(counts: Floats, costs: Floats) -> Floats:
    """Cohen's kappa from counts of shape (..., 6, 6), given the cost of each confusion: 1 - observed / expected cost.

    NaN where chance alone would agree.
    """
    total = counts.sum((-2, -1), keepdims=True)
    expected = ratio(counts.sum(-1, keepdims=True) * counts.sum(-2, keepdims=True), total)
    return 1 - ratio((counts * costs).sum((-2, -1)), (expected * costs).sum((-2, -1)))


def estimated_kappa(judged: Judged, costs: Floats, config: BootstrapConfig) -> Estimate:
    """Kappa with its interval, by drawing truths with replacement."""
    by_truth = confusion_by_truth(judged)
    drawn = draw_sums(by_truth, config, "calibration").reshape(-1, SIZE, SIZE)
    value = float(kappa(confusion(judged), costs))
    return bootstrapped(value, kappa(drawn, costs), len(by_truth), config.level, span=(-1.0, 1.0))


def channel_estimates(judged: Judged) -> list[list[Estimate]]:
    """The confusion matrix as shares of each gold category, with intervals; undefined in a row without a pair."""

    def cell(category: Category, verdict: Category) -> Estimate:
        row = judged.scored & (judged.gold == category)
        return proportion(judged.said[row] == verdict, judged.truths[row])

    return [[cell(category, verdict) for verdict in Category] for category in Category]


def accuracy(judged: Judged) -> Estimate:
    """Share of scored pairs that are judged right."""
    return proportion(judged.right[judged.scored], judged.truths[judged.scored])


def recall(judged: Judged, category: Category) -> Estimate:
    """Share of the pairs of a category that are judged so."""
    among = judged.scored & (judged.gold == category)
    return proportion(judged.right[among], judged.truths[among])


def precision(judged: Judged, category: Category) -> Estimate:
    """Share of the pairs judged to be of a category that are; it depends on how many pairs of each kind there are."""
    among = judged.said == category
    return proportion(judged.right[among], judged.truths[among])
