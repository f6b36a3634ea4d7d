"""Metric: a number that follows from sums over questions, with the bounds that unscored answers leave it.

Because every metric is a function of sums, one bootstrap over classes serves them all (see `bootstrap`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Bounds: TypeAlias = tuple[float | None, float | None]
"""Lowest and highest value; None where there is no such limit, or no value at all."""


@dataclass(frozen=True)
class Metric:
    """One number."""

    name: str
    definition: str
    """What it is, in one sentence."""
    statistic: Callable[[Floats], Floats]
    """From sums, shape (..., F), to values, shape (...); NaN where it is undefined."""
    bounds: Callable[[Floats], Bounds]
    """From the family's `extremes` to the lowest and the highest value over all that unscored answers may
    be."""
    span: Bounds = (0.0, 1.0)
    """Between what its values always lie; None where there is no such limit."""


@dataclass(frozen=True)
class Family:
    """Metrics that are functions of the same sums."""

    features: Floats
    """What is summed over questions: shape (questions, F)."""
    metrics: tuple[Metric, ...]
    extremes: Floats | None = None
    """What bounds are computed from; the sums of `features`, shape (F,), where None."""


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Their quotient; NaN where the denominator is 0."""
    numerator, denominator = np.broadcast_arrays(numerator, denominator)
    quotient = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=quotient, where=denominator > 0)
    return quotient


def number(value: float | Floats) -> float | None:
    """A number for results, from one of shape (); None for NaN. To ten decimals: the last bits differ by machine."""
    return None if np.isnan(value) else round(float(value), 10) + 0.0  # never -0.0


def mean_family(
    name: str,
    definition: str,
    numbers: NDArray[Any],
    counted: NDArray[np.bool_],
    missing: NDArray[np.bool_],
    span: Bounds = (0.0, 1.0),
) -> Family:
    """Mean of a number per response over the responses that count; all arrays of shape (questions, n).

    A response that is `missing` might have had any number within `span`.
    """
    features = np.stack([np.where(counted, numbers, 0).sum(1), counted.sum(1), missing.sum(1)], 1).astype(np.float64)

    def statistic(sums: Floats) -> Floats:
        return ratio(sums[..., 0], sums[..., 1])

    def bounds(sums: Floats) -> Bounds:
        total, count, lost = sums
        if not lost:
            return number(statistic(sums)), number(statistic(sums))
        low, high = (None if limit is None else number((total + limit * lost) / (count + lost)) for limit in span)
        return low, high

    return Family(features, (Metric(name, definition, statistic, bounds, span),))
