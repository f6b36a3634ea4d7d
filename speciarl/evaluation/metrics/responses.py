"""Responses: all that a model wrote in one cell, as arrays of shape (questions, n); the same for every judge."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from speciarl.evaluation import tables

COLUMNS = [
    "sample_id", "index", "data_source", "ground_truth", "label_path", "failure", "answer", "tokens", "finish_reason",
]  # fmt: skip
_SEPARATOR = "\x1f"


@dataclass(frozen=True)
class Responses:
    """Predictions of one cell. Question by question as in the table; answers by their index."""

    rows: pa.Table
    """Columns ``sample_id`` and ``index`` of the table."""
    questions: pa.ChunkedArray
    """`sample_id` of each question."""
    places: tuple[NDArray[np.int64], NDArray[np.int64]]
    """Question and index of each row of the table: where its value goes in an array of shape (questions, n)."""
    classes: NDArray[np.int64]
    """Class of each question, shape (questions,): a place in `class_names`."""
    class_names: list[tuple[str, ...]]
    """Data source and label path (the ground truth where there is none), sorted."""
    predicted: NDArray[np.bool_]
    """Whether there is a response, shape (questions, n)."""
    pairs: list[tuple[str, str]]
    """The distinct pairs of ground truth and answer."""
    pair: NDArray[np.int64]
    """Pair of each response, shape (questions, n): a place in `pairs`, -1 where the response holds no answer."""
    tokens: NDArray[np.int32]
    """Length in tokens, shape (questions, n); -1 where unknown."""
    capped: NDArray[np.bool_]
    """Whether the cap on tokens cut it off, shape (questions, n)."""
    ended: NDArray[np.bool_]
    """Whether it is known how it ended, shape (questions, n)."""
    failed: Mapping[str, int]
    """Questions at least one answer to which failed, by failure."""

    @property
    def shape(self) -> tuple[int, int]:
        """Questions, and answers to each."""
        questions, n = self.predicted.shape
        return questions, n

    def of_pairs(self, function: Callable[[str, str], float]) -> NDArray[np.float64]:
        """A number for each response from its truth and its answer, shape (questions, n); 0 where it holds no answer.

        `function` is called once for each distinct pair.
        """
        return self.spread(np.array([function(truth, answer) for truth, answer in self.pairs], np.float64))

    def spread(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values of the distinct pairs, shape (pairs,), to responses, shape (questions, n); 0 where no answer is."""
        return np.append(values, 0.0)[self.pair]  # -1 is the last

    def place(self, column: NDArray[Any], absent: Any, kind: Any) -> NDArray[Any]:
        """A column of the table as an array of shape (questions, n); `absent` where the table has no row."""
        return _scatter(self.places, self.shape, column, absent, kind)


def load(path: Path) -> Responses:
    """The responses in ``predictions/…/PROMPT.parquet``; raises DataError in one line when it cannot be read."""
    table = tables.read(path, tables.PREDICTIONS, COLUMNS)
    ids = table["sample_id"]
    first = np.ones(len(table), np.bool_)
    if len(table):
        first[1:] = pc.not_equal(ids.slice(1), ids.slice(0, len(ids) - 1)).to_numpy()
    places = (np.cumsum(first) - 1, table["index"].to_numpy().astype(np.int64))
    shape = (int(first.sum()), int(places[1].max(initial=-1)) + 1)
    starts = table.select(["sample_id", "data_source", "ground_truth", "label_path"]).take(
        pa.array(np.flatnonzero(first))
    )
    classes, class_names = _classes(starts)
    pair, pairs = _pairs(starts["ground_truth"], table["answer"], places[0])

    def spread(values: NDArray[Any], absent: Any, kind: Any) -> NDArray[Any]:
        return _scatter(places, shape, values, absent, kind)

    return Responses(
        rows=table.select(["sample_id", "index"]),
        questions=starts["sample_id"],
        places=places,
        classes=classes,
        class_names=class_names,
        predicted=spread(pc.is_null(table["failure"]).to_numpy(), False, np.bool_),
        pairs=pairs,
        pair=spread(pair, -1, np.int64),
        tokens=spread(pc.fill_null(table["tokens"], -1).to_numpy(), -1, np.int32),
        capped=spread(pc.equal(pc.fill_null(table["finish_reason"], ""), "length").to_numpy(), False, np.bool_),
        ended=spread(pc.is_valid(table["finish_reason"]).to_numpy(), False, np.bool_),
        failed=_failed(table["failure"], places[0]),
    )


def _scatter(
    places: tuple[NDArray[np.int64], NDArray[np.int64]], shape: tuple[int, int], values: Any, absent: Any, kind: Any
) -> NDArray[Any]:
    spread = np.full(shape, absent, kind)
    spread[places] = values
    return spread


def _codes(column: Any) -> tuple[NDArray[np.int64], pa.Array]:
    """Number of each value, -1 for null, and the distinct values in order."""
    distinct = pc.unique(column).drop_null()
    return pc.fill_null(pc.index_in(column, value_set=distinct), -1).to_numpy().astype(np.int64), distinct


def _classes(questions: pa.Table) -> tuple[NDArray[np.int64], list[tuple[str, ...]]]:
    path = pc.binary_join(questions["label_path"], _SEPARATOR)
    named = pc.greater(pc.fill_null(pc.list_value_length(questions["label_path"]), 0), 0)
    path = pc.if_else(named, path, questions["ground_truth"])
    codes, names = _codes(pc.binary_join_element_wise(questions["data_source"], path, _SEPARATOR))
    order = np.argsort(np.array(names.to_pylist(), dtype=object), kind="stable")
    rank = np.empty(len(names), np.int64)
    rank[order] = np.arange(len(names))
    return rank[codes], [tuple(names[int(place)].as_py().split(_SEPARATOR)) for place in order]


def _pairs(truths: Any, answers: Any, question: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[tuple[str, str]]]:
    truth, truth_names = _codes(truths)
    answer, answer_names = _codes(answers)
    both = np.where(answer < 0, -1, truth[question] * max(len(answer_names), 1) + answer)
    distinct, code = np.unique(both, return_inverse=True)
    blank = int(bool(len(distinct)) and distinct[0] == -1)
    truth_texts, answer_texts = truth_names.to_pylist(), answer_names.to_pylist()
    pairs = [
        (truth_texts[number // len(answer_texts)], answer_texts[number % len(answer_texts)])
        for number in distinct[blank:].tolist()
    ]
    return code.reshape(-1).astype(np.int64) - blank, pairs


def _failed(failure: Any, question: NDArray[np.int64]) -> dict[str, int]:
    codes, names = _codes(failure)
    failed = {name: len(np.unique(question[codes == code])) for code, name in enumerate(names.to_pylist())}
    return dict(sorted(failed.items()))
