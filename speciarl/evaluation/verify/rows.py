"""Rows of the verify stage: which pair of an answer is judged, and the row that its judgement becomes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from speciarl.category import Category
from speciarl.errors import DataError
from speciarl.evaluation.outcome import Outcome, of_judgement, without_judge
from speciarl.evaluation.tables import PREDICTIONS, VERDICTS
from speciarl.verdict import Judgement, Pair, Source, Unscorable, Verdict

ROWS_PER_BATCH = 10_000
"""Rows in memory at once, as against the distinct pairs, which all are."""

FAILED_PREDICTION = "prediction:"
"""What the reason of an answer without a prediction begins with."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, as far as judging it takes."""

    sample_id: str
    index: int
    ground_truth: str
    failure: str | None
    failure_detail: str | None
    answer: str | None


_COLUMNS = tuple(field.name for field in fields(Answer))


def batches(path: Path, schema: pa.Schema, columns: tuple[str, ...]) -> Iterator[list[tuple[Any, ...]]]:
    """Rows of a table in batches, each row as a tuple in the order of `columns`; raises DataError in one line."""
    try:
        with pq.ParquetFile(path) as file:
            for name in columns:
                found = file.schema_arrow.get_field_index(name)
                if found < 0 or file.schema_arrow.field(found).type != schema.field(name).type:
                    raise DataError(f"{path} has no column {name} of type {schema.field(name).type}; make it again")
            for batch in file.iter_batches(ROWS_PER_BATCH, columns=list(columns)):
                yield list(zip(*(batch.column(name).to_pylist() for name in columns), strict=True))
    except (OSError, pa.ArrowException) as error:
        cause = " ".join(str(error).split())
        raise DataError(f"{path} cannot be read ({cause}); run the stage that makes it") from error


def answers(predictions: Path) -> Iterator[Answer]:
    """The answers of a predictions table; raises DataError in one line."""
    for batch in batches(predictions, PREDICTIONS, _COLUMNS):
        for row in batch:
            yield Answer(*row)


def pair_of(answer: Answer, too_long_chars: int) -> Pair | None:
    """The pair that a judge decides; None for an answer that no judge has to see."""
    if answer.failure is not None or answer.answer is None or without_judge(answer.answer, too_long_chars) is not None:
        return None
    return Pair(answer.ground_truth, answer.answer)


def verdict_row(answer: Answer, judgement: Judgement | None, too_long_chars: int) -> dict[str, Any]:
    """The row of `VERDICTS` of an answer; `judgement` is that of its pair, None where it has none."""
    outcome, reason, detail, margin, probabilities = Outcome.UNSCORED, None, None, None, None
    if answer.failure is not None:
        reason, detail = FAILED_PREDICTION + answer.failure, answer.failure_detail
    elif isinstance(judgement, Unscorable):
        reason, detail = judgement.reason.value, judgement.detail
    elif judgement is not None:
        outcome, margin, probabilities = of_judgement(judgement), judgement.margin, judgement.probabilities
    else:
        decided = without_judge(answer.answer, too_long_chars)
        assert decided is not None, "an answer for a judge comes with its judgement"
        outcome = decided
    values = (answer.sample_id, answer.index, int(outcome), reason, detail, margin, probabilities)
    return dict(zip(VERDICTS.names, values, strict=True))


def known_verdicts(predictions: Path, verdicts: Path, too_long_chars: int) -> dict[Pair, Judgement]:
    """Verdicts by pair that an earlier table of the same predictions holds; failures are left out."""
    known: dict[Pair, Judgement] = {}
    columns = ("outcome", "margin", "probabilities")
    earlier = (row for batch in batches(verdicts, VERDICTS, columns) for row in batch)
    for answer, (outcome, margin, probabilities) in zip(answers(predictions), earlier, strict=True):
        category = Outcome(outcome).category
        pair = pair_of(answer, too_long_chars) if category is not None else None
        if pair is not None:
            spread = None if probabilities is None else tuple(probabilities)
            known[pair] = Verdict(Category(outcome), margin, Source.STORE, spread)
    return known


def content_hash(path: Path) -> str:
    """SHA-256 of a file; raises DataError in one line when it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); run the stage that makes it") from error
