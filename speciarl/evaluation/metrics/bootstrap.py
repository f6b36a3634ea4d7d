"""Bootstrap clustered on class: intervals of any function of sums over questions.

Questions of one class share what makes it hard, so that they are no independent evidence; classes are. Each draw takes
as many classes as there are, with replacement, each with all its questions.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtr, stdtrit

from speciarl.evaluation.config import BootstrapConfig
from speciarl.evaluation.metrics.metric import Floats, number

_AT_ONCE = 4_000_000
"""Weights of classes held at once; bounds memory."""
POWER = 0.8


def class_sums(features: Floats, classes: NDArray[np.int64], count: int) -> Floats:
    """Sums over the questions of each class, shape (count, F), from shape (questions, F)."""
    columns = [np.bincount(classes, column, minlength=count) for column in features.T]
    return np.stack(columns, 1) if columns else np.zeros((count, 0))


def draw_sums(sums: Floats, config: BootstrapConfig, stream: str) -> Floats:
    """Sums of each draw, shape (draws, F), from those of classes, shape (classes, F).

    The same seed, stream and number of classes give the same draws on every machine, so that two models' values on one
    data set are paired draw by draw. Streams are independent of each other.
    """
    name = int.from_bytes(hashlib.sha256(stream.encode()).digest()[:8], "little")
    chance = np.random.Generator(np.random.PCG64([config.seed, name]))
    classes = len(sums)
    drawn = np.empty((config.draws, sums.shape[1]))
    step = max(1, _AT_ONCE // max(classes, 1))
    for start in range(0, config.draws, step):
        rows = min(step, config.draws - start)
        picks = chance.integers(0, classes, (rows, classes)) + np.arange(rows)[:, None] * classes
        weights = np.bincount(picks.ravel(), minlength=rows * classes).reshape(rows, classes)
        drawn[start : start + rows] = weights.astype(np.float64) @ sums
    return drawn


def interval(draws: Floats, classes: int, level: float) -> tuple[float | None, float | None]:
    """Expanded percentile interval from the values of all draws, shape (draws,); None twice for less than two classes.

    Plain percentiles are too narrow for few classes: they use the spread of `classes` values without the correction by
    classes - 1, and the normal distribution for Student's. The percentiles are taken as far out as makes up for both
    (Hesterberg 2015, What Teachers Should Know About the Bootstrap). Draws without a value (NaN) are left out.
    """
    values = np.sort(draws[~np.isnan(draws)])
    if classes < 2 or not len(values):
        return None, None
    tail = ndtr(stdtrit(classes - 1, (1 - level) / 2) * np.sqrt(classes / (classes - 1)))
    outside = int(tail * len(values))  # an order statistic, not interpolated: the same on every machine
    return number(values[outside]), number(values[-1 - outside])


@dataclass(frozen=True, slots=True)
class Test:
    """Test of a value against 0, by Student's distribution with the bootstrap's standard error."""

    low: float | None
    high: float | None
    p: float
    """Two-sided. 1 where it cannot be told, for less than two classes."""
    detectable: float
    """Smallest true value that would be shown with a power of .8. 1, the largest there can be, where none would."""


def test(value: float, draws: Floats, classes: int, level: float) -> Test:
    """Interval and p value of a difference, which agree: the interval holds 0 exactly where p is above 1 - level."""
    values = draws[~np.isnan(draws)]
    if classes < 2 or not len(values):
        return Test(None, None, 1.0, 1.0)
    freedom = classes - 1
    error = float(np.std(values)) * np.sqrt(classes / freedom)
    reach = stdtrit(freedom, (1 + level) / 2)
    p = 2 * stdtr(freedom, -abs(value) / error) if error else float(value == 0)
    detectable = min(1.0, (reach + stdtrit(freedom, POWER)) * error)
    low, high = number(value - reach * error), number(value + reach * error)
    return Test(low, high, round(float(p), 10), round(float(detectable), 10))
