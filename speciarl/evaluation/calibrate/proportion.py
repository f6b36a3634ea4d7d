"""Intervals for which observations of one cluster are no independent evidence: of proportions, and by bootstrap."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from speciarl.evaluation.metrics.bootstrap import Spread
from speciarl.evaluation.metrics.metric import Bounds, Floats, number
from speciarl.evaluation.results import Estimate

LEVEL = 0.95


def proportion(hits: NDArray[np.bool_], clusters: NDArray[np.int64], level: float = LEVEL) -> Estimate:
    """Share of hits, both of shape (observations,), with Wilson's interval for the effective number of observations.

    Unlike a bootstrap's, the interval of 50 hits of 50 is not a point. The effective number is the number divided by
    the design effect: the variance that clusters explain over that of independent observations, at least 1 (Kish).
    Where nothing varies it is the number of clusters.
    """
    count = len(hits)
    if not count:
        return Estimate(None)
    share = float(np.mean(hits))
    _, members = np.unique(clusters, return_inverse=True)
    groups = int(members.max()) + 1
    effective = float(groups)
    if 0 < share < 1:
        residuals = np.bincount(members, hits - share, minlength=groups)
        clustered = groups / max(groups - 1, 1) * np.sum(residuals**2) / count**2
        effective = count / max(1.0, clustered / (share * (1 - share) / (count - 1)))
    z = float(ndtri((1 + level) / 2))
    centre = (share + z**2 / (2 * effective)) / (1 + z**2 / effective)
    reach = z / (1 + z**2 / effective) * np.sqrt(share * (1 - share) / effective + z**2 / (4 * effective**2))
    return Estimate(number(share), number(max(0.0, centre - reach)), number(min(1.0, centre + reach)))


def bootstrapped(value: float, draws: Floats, clusters: int, level: float, span: Bounds = (0.0, 1.0)) -> Estimate:
    """A number with the interval that its values in all draws give, shape (draws,), NaN where it has none.

    `clusters` are what was drawn from; `span` is what such numbers lie within.
    """
    spread = Spread.of(draws, clusters)
    if np.isnan(value) or spread is None:
        return Estimate(number(value))
    low, high = spread.interval(value, level, span)
    return Estimate(number(value), number(low), number(high))
