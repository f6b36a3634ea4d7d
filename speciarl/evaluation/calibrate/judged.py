"""Judged pairs: gold categories and a judge's verdicts as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from speciarl.category import Category
from speciarl.evaluation.calibrate.gold import GoldPair
from speciarl.verdict import Judgement, Verdict

UNSCORED = -1
"""In place of a category where there is no verdict."""


@dataclass(frozen=True)
class Judged:
    """Pairs with what they are and what they were judged to be; all arrays over pairs."""

    gold: NDArray[np.int64]
    """Category of each pair, shape (pairs,)."""
    said: NDArray[np.int64]
    """Category by the judge, or UNSCORED, shape (pairs,)."""
    truths: NDArray[np.int64]
    """Which ground truth, from 0: pairs of one truth are no independent evidence. Shape (pairs,)."""
    margins: NDArray[np.float64]
    """In nats; NaN where the judge gives none. Shape (pairs,)."""
    probabilities: NDArray[np.float64]
    """Of each category; NaN where the judge gives none. Shape (pairs, 6)."""

    @property
    def scored(self) -> NDArray[np.bool_]:
        """Whether each pair has a verdict, shape (pairs,)."""
        return np.asarray(self.said != UNSCORED)

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether each verdict is the gold category, shape (pairs,)."""
        return np.asarray(self.said == self.gold)


def judged(pairs: Sequence[GoldPair], judgements: Sequence[Judgement]) -> Judged:
    """Gold pairs and their judgements, in the same order, as arrays."""
    truths = {pair.pair.ground_truth: None for pair in pairs}
    numbers = {truth: number for number, truth in enumerate(truths)}
    nothing = (np.nan,) * len(Category)
    verdicts = [judgement if isinstance(judgement, Verdict) else None for judgement in judgements]
    return Judged(
        np.array([pair.category for pair in pairs], np.int64),
        np.array([UNSCORED if verdict is None else verdict.category for verdict in verdicts], np.int64),
        np.array([numbers[pair.pair.ground_truth] for pair in pairs], np.int64),
        np.array([np.nan if v is None or v.margin is None else v.margin for v in verdicts]),
        np.array([v.probabilities if v is not None and v.probabilities else nothing for v in verdicts]),
    )
