"""Choice of the samples that a page shows whole: every outcome and every change between runs first, then a spread."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from speciarl.evaluation.report.outcomes import NOT_ASKED, Codes

Rows: TypeAlias = npt.NDArray[np.int64]
_CODES = 16
"""More than there are codes of outcomes."""


def choose(columns: Sequence[Codes], dataset: npt.NDArray[np.integer], limit: int) -> Rows:
    """Rows of at most `limit` questions, the most telling first.

    `columns` are the outcomes of each run, `dataset` the number of each question's data set, all of shape (questions,).
    First come an example of each outcome of each run and of each change between two runs; then, in turn from all
    combinations of data set and outcomes, one question each, those on which the runs differ before the others. Among
    equals a fixed shuffle decides, so that the same questions and outcomes choose the same rows.
    """
    count = len(dataset)
    if not columns or not count:
        return np.arange(min(count, limit))
    shuffled = np.argsort(_shuffle(np.arange(count, dtype=np.uint64)), kind="stable")
    outcomes = np.stack([column.astype(np.int64) - NOT_ASKED for column in columns])[:, shuffled]
    order = np.concatenate([_examples(outcomes), _spread(outcomes, dataset[shuffled])])
    _, first = np.unique(order, return_index=True)
    rows: Rows = shuffled[order[np.sort(first)]][:limit]
    return rows


def _examples(outcomes: npt.NDArray[np.int64]) -> Rows:
    """The first row with each outcome of each run, and with each pair of outcomes of two runs."""
    found = [np.unique(column, return_index=True)[1] for column in outcomes]
    for one, other in itertools.combinations(outcomes, 2):
        found.append(np.unique(one * _CODES + other, return_index=True)[1])
    return np.concatenate(found)


def _spread(outcomes: npt.NDArray[np.int64], dataset: npt.NDArray[np.integer]) -> Rows:
    """All rows: the first of each combination, then the second of each, …; within a turn, differing ones first."""
    combination: npt.NDArray[np.int64] = dataset.astype(np.int64)
    for column in outcomes:
        combination = np.unique(combination * _CODES + column, return_inverse=True)[1].reshape(-1)
    together = np.argsort(combination, kind="stable")
    sizes = np.bincount(combination)
    turn = np.empty_like(together)
    turn[together] = np.arange(len(together)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    alike = (outcomes == outcomes[0]).all(axis=0)
    order: Rows = np.lexsort((alike, turn))
    return order


def _shuffle(numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """SplitMix64: numbers spread over all of 64 bits, the same everywhere."""
    mixed = (numbers + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
