"""Bootstrap clustered on class: intervals of any function of sums over questions.

Questions of one class share what makes it hard, so that they are no independent evidence; classes are. Each draw takes
as many classes as there are, with replacement, each with all its questions.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit, stdtr, stdtrit

from speciarl.evaluation.config import BootstrapConfig
from speciarl.evaluation.metrics.metric import Bounds, Floats

_AT_ONCE = 4_000_000
"""Weights of classes held at once; bounds memory."""
POWER = 0.8
_NOTHING = 1e-12
"""What rounding leaves of nothing."""


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
    drawn = np.full((config.draws, sums.shape[1]), np.nan)
    if not classes:
        return drawn
    step = max(1, _AT_ONCE // max(classes, 1))
    for start in range(0, config.draws, step):
        rows = min(step, config.draws - start)
        picks = chance.integers(0, classes, (rows, classes)) + np.arange(rows)[:, None] * classes
        weights = np.bincount(picks.ravel(), minlength=rows * classes).reshape(rows, classes)
        drawn[start : start + rows] = weights.astype(np.float64) @ sums
    return drawn


@dataclass(frozen=True, slots=True)
class Spread:
    """How far the values of draws lie from each other, and Student's distribution for it."""

    error: float
    """Standard error of the value: the draws' standard deviation, with the correction by classes - 1 that it lacks."""
    freedom: float
    """Degrees of freedom: classes - 1."""

    @classmethod
    def of(cls, draws: Floats, classes: int) -> Spread | None:
        """From the values of all draws, shape (draws,), NaN where there is none; None for less than two classes."""
        values = draws[~np.isnan(draws)]
        if classes < 2 or not len(values):
            return None
        return cls(float(np.std(values)) * math.sqrt(classes / (classes - 1)), classes - 1)

    @classmethod
    def of_mean(cls, spreads: Sequence[Spread]) -> Spread:
        """Of the mean of independent values; degrees of freedom by Welch and Satterthwaite."""
        squares = np.array([spread.error**2 for spread in spreads])
        total = float(squares.sum())
        inverse = float((squares**2 / [spread.freedom for spread in spreads]).sum())
        freedom = total**2 / inverse if inverse else min(spread.freedom for spread in spreads)
        return cls(math.sqrt(total) / len(spreads), freedom)

    def interval(self, value: float, level: float, span: Bounds = (None, None)) -> tuple[float, float]:
        """Interval around a value.

        Within a `span` with two ends it is made on the scale of log-odds, whose ends are never reached: near an end the
        values of draws are far from symmetric, and few classes show it. A value at an end, to which no draw differs,
        gets the exact interval of so many classes that are all alike. With one end or none it is symmetric, cut off
        there.
        """
        reach = float(stdtrit(self.freedom, (1 + level) / 2)) * self.error
        low, high = (-math.inf if span[0] is None else span[0], math.inf if span[1] is None else span[1])
        if self.alike and min(value - low, high - value) < _NOTHING and math.isfinite(high - low):
            slack = (high - low) * (1 - ((1 - level) / 2) ** (1 / (self.freedom + 1)))
            return (low, low + slack) if value - low < _NOTHING else (high - slack, high)
        if not reach or not low < value < high:
            return value, value
        if math.isinf(high - low):
            return max(value - reach, low), min(value + reach, high)
        part, width = (value - low) / (high - low), high - low
        odds, slope = logit(part), 1 / (part * (1 - part) * width)
        ends = expit(np.array([odds - reach * slope, odds + reach * slope]))
        return float(low + width * ends[0]), float(low + width * ends[1])

    @property
    def alike(self) -> bool:
        """Whether the classes do not differ, so that nothing is known of how far others might."""
        return self.error < _NOTHING

    def p(self, value: float) -> float:
        """Two-sided p value of a true value of 0; `interval` without a span holds 0 where it is above 1 - level.

        Of classes that are all alike that of the sign test, which takes six classes to pass.
        """
        if self.alike:
            return 1.0 if abs(value) < _NOTHING else min(1.0, 2.0**-self.freedom)
        return float(2 * stdtr(self.freedom, -abs(value) / self.error))

    def detectable(self, level: float) -> float:
        """Smallest true value that would be told from 0 with a power of .8."""
        return float(stdtrit(self.freedom, (1 + level) / 2) + stdtrit(self.freedom, POWER)) * self.error
