"""Tables of an evaluation: the columns of its parquet files, and reading and writing them.

A cell's two tables have the same rows in the same order: by row of the data file, then by index of the answer.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from speciarl.errors import DataError
from speciarl.utils.atomic_files import replacing

PREDICTIONS = pa.schema(
    [
        ("sample_id", pa.string()),  # unique within a data file, the same on every machine
        ("index", pa.int32()),  # which of the n answers, from 0
        ("data_source", pa.string()),
        ("ground_truth", pa.string()),
        ("label_path", pa.list_(pa.string())),  # broadest to finest name
        ("question", pa.string()),  # hash of prompt text and image bytes
        ("key", pa.string()),  # hash of all that the answer depends on
        ("seed", pa.int64()),  # of this one answer; null where greedy
        ("failure", pa.string()),  # why there is no answer: a value of predict's Failure; null where there is one
        ("failure_detail", pa.string()),
        ("text", pa.string()),  # the whole response
        ("answer", pa.string()),  # what of it is judged; null where unparsable
        ("tokens", pa.int32()),
        ("prompt_tokens", pa.int32()),
        ("finish_reason", pa.string()),  # "stop", or "length" where the cap cut it off
        ("image_width", pa.int32()),  # of the image that the model's processor was given
        ("image_height", pa.int32()),
    ]
)
"""Columns of ``predictions/MODEL/DATASET/PROMPT.parquet``."""

VERDICTS = pa.schema(
    [
        ("sample_id", pa.string()),
        ("index", pa.int32()),
        ("outcome", pa.int8()),  # a value of Outcome
        ("reason", pa.string()),  # why unscored: a Reason, or "prediction:FAILURE"; null where scored
        ("detail", pa.string()),
        ("margin", pa.float32()),  # nats; null where the judge gives none
        ("probabilities", pa.list_(pa.float32())),  # six, in category order; null where the judge gives none
    ]
)
"""Columns of ``verdicts/JUDGE/MODEL/DATASET/PROMPT.parquet``."""

_FACTS = b"speciarl.evaluation"
ROWS_PER_GROUP = 10_000


def write(path: Path, schema: pa.Schema, rows: Iterable[Mapping[str, Any]], facts: Mapping[str, Any]) -> None:
    """Write a table in one piece: all of it or nothing. The same rows and facts give the same bytes.

    `facts` (JSON values) say how it was made. Raises OSError when it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    described = schema.with_metadata({_FACTS: json.dumps(facts, sort_keys=True, ensure_ascii=False).encode()})
    with replacing(path) as draft, pq.ParquetWriter(draft, described, compression="zstd") as out:
        batch: list[Mapping[str, Any]] = []
        for row in rows:
            batch.append(row)
            if len(batch) == ROWS_PER_GROUP:
                out.write_table(pa.Table.from_pylist(batch, described))
                batch = []
        if batch:
            out.write_table(pa.Table.from_pylist(batch, described))


def read(path: Path, schema: pa.Schema, columns: list[str] | None = None) -> pa.Table:
    """A table, or some of its columns; raises DataError in one line when it is missing or of another kind."""
    try:
        table = pq.read_table(path, columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error
    for name in columns or schema.names:
        if name not in table.column_names or table.schema.field(name).type != schema.field(name).type:
            raise DataError(f"{path} has no column {name} of type {schema.field(name).type}; make it again")
    return table


def facts(path: Path) -> dict[str, Any]:
    """What `write` was told of how the table was made; raises DataError for a file of another kind."""
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error
    if _FACTS not in metadata:
        raise DataError(f"{path} was not written by an evaluation; give another file")
    found: dict[str, Any] = json.loads(metadata[_FACTS])
    return found


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} cannot be read ({' '.join(str(error).split())}); run the stage that makes it")
