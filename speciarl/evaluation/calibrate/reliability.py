"""Reliability of a judge: whether its margins and probabilities say how sure its verdicts are, and whether it repeats
itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from speciarl.evaluation.calibrate.judged import UNSCORED, Judged
from speciarl.evaluation.calibrate.proportion import proportion
from speciarl.evaluation.metrics.metric import number
from speciarl.evaluation.results import Estimate

MARGIN_BINS = 5
PROBABILITY_BINS = 10


@dataclass(frozen=True)
class MarginBin:
    """Pairs of about the same margin."""

    least: float
    """Smallest margin among them, in nats."""
    most: float
    pairs: int
    accuracy: Estimate


def by_margin(judged: Judged, bins: int = MARGIN_BINS) -> list[MarginBin]:
    """Accuracy by margin, in bins of about as many pairs each, smallest margins first; none without margins."""
    order = np.flatnonzero(judged.scored & ~np.isnan(judged.margins))
    order = order[np.argsort(judged.margins[order], kind="stable")]
    return [
        MarginBin(
            float(judged.margins[part[0]]),
            float(judged.margins[part[-1]]),
            len(part),
            proportion(judged.right[part], judged.truths[part]),
        )
        for part in np.array_split(order, bins)
        if len(part)
    ]


def expected_calibration_error(judged: Judged, bins: int = PROBABILITY_BINS) -> float | None:
    """Mean distance between the probability of the verdict and the share of right verdicts, over bins of equal width.

    In [0, 1]; None without probabilities.
    """
    has = judged.scored & ~np.isnan(judged.probabilities).any(1)
    if not has.any():
        return None
    sure = judged.probabilities[has, judged.said[has]]
    places = np.minimum((sure * bins).astype(int), bins - 1)
    gaps = np.bincount(places, judged.right[has] - sure, minlength=bins)  # sums over bins
    return number(np.abs(gaps).sum() / len(sure))


def flip_rate(one: NDArray[np.int64], other: NDArray[np.int64], truths: NDArray[np.int64]) -> Estimate:
    """Share of pairs that got another category the other time; all of shape (pairs,). Unscored ones take no part."""
    both = (one != UNSCORED) & (other != UNSCORED)
    return proportion(one[both] != other[both], truths[both])
