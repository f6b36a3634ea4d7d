"""Answers: what became of every answer of one cell by one judge, as an array of shape (questions, n)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from speciarl.errors import DataError
from speciarl.evaluation import tables
from speciarl.evaluation.metrics.responses import Responses
from speciarl.evaluation.outcome import Outcome
from speciarl.evaluation.verify.standing import refuse_stale

MISSING = "missing"
"""Reason of answers that the tables have no row for."""


@dataclass(frozen=True)
class Answers:
    """Responses of one cell and what a judge made of them."""

    responses: Responses
    outcomes: NDArray[np.int8]
    """A value of `Outcome` for each answer, shape (questions, n)."""
    unscored: Mapping[str, int]
    """Answers without a verdict, by reason."""


def load(path: Path, predictions: Path, responses: Responses, too_long_chars: int) -> Answers:
    """The verdicts in ``verdicts/…/PROMPT.parquet`` on the responses loaded from the file of predictions.

    Raises DataError in one line when it cannot be read, is about other answers, or was made of earlier predictions or
    with another limit.
    """
    refuse_stale(path, predictions, too_long_chars)
    table = tables.read(path, tables.VERDICTS, ["sample_id", "index", "outcome", "reason"])
    if not table.select(["sample_id", "index"]).equals(responses.rows):
        raise DataError(f"{path} is about other answers than its table of predictions; run the stage `verify` again")
    codes = pc.fill_null(table["outcome"], Outcome.UNSCORED.value).to_numpy()
    if len(codes) and not (min(Outcome) <= codes.min() and codes.max() <= max(Outcome)):
        raise DataError(f"{path} holds an outcome that there is not; run the stage `verify` again")
    outcomes = responses.place(codes, Outcome.UNSCORED, np.int8)
    reasons = table.filter(codes == Outcome.UNSCORED)["reason"]
    unscored = {str(count["values"]): count["counts"] for count in pc.value_counts(reasons).to_pylist()}
    if outcomes.size > len(table):
        unscored[MISSING] = outcomes.size - len(table)
    return Answers(responses, outcomes, dict(sorted(unscored.items())))
