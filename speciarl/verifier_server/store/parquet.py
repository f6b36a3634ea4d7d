"""Parquet export and import of a verdict store: one row per verdict, with every field."""

import contextlib
import dataclasses
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from speciarl.category import Category
from speciarl.utils.atomic_files import replacing
from speciarl.verdict import Pair, Source, Verdict
from speciarl.verifier_server.store.interface import StoreError, VerdictStore
from speciarl.verifier_server.store.key import JudgeIdentity
from speciarl.verifier_server.store.maintenance import Advance
from speciarl.verifier_server.store.record import NOT_OURS, Record, checksum_of, verified

FORMAT = "speciarl verdicts 1"
"""Name of the format, under `format` in the file's metadata."""
ROWS = 50_000
"""Rows held in memory at once."""
CHUNK = 1000
"""Entries read from the store at once."""

_IDENTITY = tuple(f.name for f in dataclasses.fields(JudgeIdentity))


@dataclass
class Exported:
    """Result of an export: how many entries went into the file."""

    rows: int = 0
    corrupt: int = 0
    """Damaged or foreign entries, left out."""
    unknown: int = 0
    """Entries whose judge has no stored identity, left out."""


@dataclass
class Imported:
    """Result of an import: what became of the rows of the file."""

    rows: int = 0
    """Rows that the store now holds as they are, whether it had them before or not."""
    kept: int = 0
    """Rows for which the store had another record, which stays: the first writer wins."""
    refused: int = 0
    """Rows whose key or checksum does not match their content."""
    examples: list[str] = field(default_factory=list)
    """Place and cause of the first refused rows."""


async def export(store: VerdictStore, file: Path, advance: Advance = lambda _: None) -> Exported:
    """Export all verdicts to a file that appears only when it is complete. Raises StoreError and OSError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    judges = await store.judges()
    done = Exported()
    schema = _schema()
    with replacing(file) as draft, pq.ParquetWriter(draft, schema, compression="zstd") as writer:
        async for records in _batches(store, judges, done, advance):
            writer.write_table(pa.Table.from_pylist([_row(record, judges[record.judge]) for record in records], schema))
            done.rows += len(records)
    return done


async def load(store: VerdictStore, file: Path, advance: Advance = lambda _: None) -> Imported:
    """Import the rows of an exported file that are unchanged. Raises StoreError for a file that is no export."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    done = Imported()
    try:
        with pq.ParquetFile(file) as content:
            _check_format(content.schema_arrow, file)
            for batch in content.iter_batches(batch_size=ROWS // 10):
                await _load_rows(store, batch.to_pylist(), done, file)
                advance(batch.num_rows)
    except FileNotFoundError as error:
        raise StoreError(f"there is no file {file}; check the path") from error
    except pa.ArrowInvalid as error:
        raise StoreError(f"{file} is no parquet file, or damaged: {' '.join(str(error).split())}") from error
    return done


def count_rows(file: Path) -> int | None:
    """Number of rows of a parquet file; None when it cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with contextlib.suppress(OSError, pa.ArrowInvalid):
        return int(pq.read_metadata(file).num_rows)
    return None


def _schema() -> Any:
    import pyarrow as pa

    text = pa.dictionary(pa.int32(), pa.string())
    columns = {
        "key": pa.binary(32),
        "ground_truth": pa.string(),
        "prediction": pa.string(),
        "category": text,
        "margin": pa.float64(),
        "probabilities": pa.list_(pa.float64()),
        "created_at": pa.timestamp("us", "UTC"),
        "checksum": pa.binary(8),
        "judge": text,
    }
    judge = dict.fromkeys(_IDENTITY, text) | {
        "labels": pa.list_(pa.string()),
        "pairs_per_request": pa.int32(),
        "normaliser": pa.int32(),
    }
    return pa.schema([*columns.items(), *((f"judge_{name}", kind) for name, kind in judge.items())], {"format": FORMAT})


def _row(record: Record, judge: JudgeIdentity) -> dict[str, Any]:
    verdict = record.verdict
    return {
        "key": record.key,
        "ground_truth": record.pair.ground_truth,
        "prediction": record.pair.prediction,
        "category": verdict.category.label,
        "margin": verdict.margin,
        "probabilities": verdict.probabilities,
        "created_at": record.created_us,
        "checksum": checksum_of(record),
        "judge": judge.fingerprint.hex(),
        **{f"judge_{name}": getattr(judge, name) for name in _IDENTITY},
    }


async def _batches(
    store: VerdictStore, judges: Mapping[bytes, JudgeIdentity], done: Exported, advance: Advance
) -> AsyncIterator[list[Record]]:
    waiting: list[Record] = []
    async for entries in store.scan(min(ROWS, CHUNK)):
        for _, record in entries:
            if record is None:
                done.corrupt += 1
            elif record.judge not in judges:
                done.unknown += 1
            else:
                waiting.append(record)
        advance(len(entries))
        if len(waiting) >= ROWS:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


async def _load_rows(store: VerdictStore, rows: list[dict[str, Any]], done: Imported, file: Path) -> None:
    by_judge: dict[JudgeIdentity, list[Record]] = {}
    for number, row in enumerate(rows, done.rows + done.kept + done.refused):
        try:
            judge, record = _read(row)
        except NOT_OURS as error:
            done.refused += 1
            if len(done.examples) < 3:
                done.examples.append(f"{file}, row {number}: {error}")
        else:
            by_judge.setdefault(judge, []).append(record)
    for judge, records in by_judge.items():
        for record, stored in zip(records, await store.put(judge, records), strict=True):
            done.rows += stored == record
            done.kept += stored != record


def _read(row: dict[str, Any]) -> tuple[JudgeIdentity, Record]:
    """The judge and the record of a row; raises one of NOT_OURS when no export wrote the row or it was changed."""
    fields = {name: row[f"judge_{name}"] for name in _IDENTITY}
    judge = JudgeIdentity(**(fields | {"labels": tuple(fields["labels"])}))
    probabilities = row["probabilities"]
    verdict = Verdict(
        Category.from_label(row["category"]),
        row["margin"],
        Source.STORE,
        None if probabilities is None else tuple(probabilities),
    )
    pair = Pair(row["ground_truth"], row["prediction"])
    record = Record(judge.fingerprint, pair, verdict, _microseconds(row["created_at"]))
    return judge, verified(row["key"], record, row["checksum"])


def _microseconds(moment: Any) -> int:
    return int((moment - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1))


def _check_format(schema: Any, file: Path) -> None:
    if (schema.metadata or {}).get(b"format") != FORMAT.encode() or not schema.equals(_schema()):
        raise StoreError(f"{file} is no export of a verdict store in the format {FORMAT!r}; make one with `export`")
