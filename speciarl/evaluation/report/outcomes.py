"""Outcomes of a run of the evaluation in columns: one number for each question, of its first answer and of its best."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from speciarl.errors import DataError
from speciarl.evaluation import tables
from speciarl.evaluation.matrix import Asked
from speciarl.evaluation.report.scopes import Run
from speciarl.evaluation.results import Results
from speciarl.evaluation.verify.standing import refuse_stale

Codes: TypeAlias = npt.NDArray[np.int8]
"""Outcomes as numbers, shape (questions,)."""

NOT_ASKED = -4
"""Code of a question that a run was not asked: one below the lowest `Outcome`."""


@dataclass(frozen=True)
class Judged:
    """What a run's answers came to."""

    first: Codes
    """Of each question's first answer."""
    best: Codes
    """Of its best answer; the same array where there is one answer."""


@dataclass(frozen=True)
class Questions:
    """The questions of a data set, and what became of them in every run."""

    dataset: str
    sample_ids: Any
    """pyarrow strings, in the order of the data file."""
    truths: Any
    sources: Any
    runs: Mapping[Run, Judged]

    def __len__(self) -> int:
        return len(self.sample_ids)


def load(results: Results, out: Path) -> Iterator[Questions]:
    """Data set by data set, in the order of the results. Runs without tables are left out: a report can be had of what
    there is.

    Raises DataError in one line for verdicts on other predictions.
    """
    judges = list(dict.fromkeys(cell.judge for cell in results.cells))
    for dataset in dict.fromkeys(cell.dataset for cell in results.cells):
        there = [one for one in asked(results, dataset) if one.predictions(out).exists()]
        if there:
            yield _questions(dataset, there, judges, out, results.settings["metrics"]["too_long_chars"])


def asked(results: Results, dataset: str) -> list[Asked]:
    """What was predicted on a data set, in the order of the results."""
    cells = [cell for cell in results.cells if cell.dataset == dataset]
    return list(dict.fromkeys(Asked(cell.model, dataset, cell.prompt) for cell in cells))


def starts(table: Any) -> npt.NDArray[np.int64]:
    """Rows of a table at which a question begins, shape (questions,)."""
    return np.flatnonzero(table["index"].to_numpy() == 0)


def _questions(
    dataset: str, there: Sequence[Asked], judges: Sequence[str], out: Path, too_long_chars: int
) -> Questions:
    known: Any = None
    judged: dict[Run, tuple[Any, Judged]] = {}
    for one in there:
        columns = ["sample_id", "index", "ground_truth", "data_source"]
        answers = tables.read(one.predictions(out), tables.PREDICTIONS, columns)
        questions = answers.take(starts(answers)).combine_chunks()
        known = questions if known is None else _united(known, questions)
        for judge in judges:
            path = one.verdicts(out, judge)
            if path.exists():
                refuse_stale(path, one.predictions(out), too_long_chars)
                run = Run(one.model, one.prompt, judge)
                judged[run] = questions["sample_id"], _judged(path, answers)
    ids = known["sample_id"].combine_chunks()
    runs = {run: _aligned(of, asked_ids, ids) for run, (asked_ids, of) in judged.items()}
    return Questions(dataset, ids, known["ground_truth"].combine_chunks(), known["data_source"].combine_chunks(), runs)


def _judged(path: Path, answers: Any) -> Judged:
    verdicts = tables.read(path, tables.VERDICTS, ["sample_id", "index", "outcome"])
    for column in ("sample_id", "index"):
        if not verdicts[column].equals(answers[column]):
            raise DataError(f"{path} is not of the predictions of the same name; run the verify stage again")
    outcomes: Codes = verdicts["outcome"].to_numpy()
    begin = starts(verdicts)
    first = outcomes[begin]
    return Judged(first, first if len(begin) == len(outcomes) else np.maximum.reduceat(outcomes, begin))


def _united(known: Any, more: Any) -> Any:
    """The questions of both, those of `more` that are new at the end."""
    if known["sample_id"].equals(more["sample_id"]):
        return known
    new = pc.invert(pc.is_in(more["sample_id"], value_set=known["sample_id"].combine_chunks()))
    return pa.concat_tables([known, more.filter(new)]).combine_chunks()


def _aligned(judged: Judged, own: Any, ids: Any) -> Judged:
    """The same outcomes in the order of all questions."""
    if own.combine_chunks().equals(ids):
        return judged
    at = pc.fill_null(pc.index_in(ids, value_set=own.combine_chunks()), -1).to_numpy(zero_copy_only=False)

    def align(codes: Codes) -> Codes:
        return np.where(at < 0, np.int8(NOT_ASKED), codes[at]).astype(np.int8)

    first = align(judged.first)
    return Judged(first, first if judged.best is judged.first else align(judged.best))
