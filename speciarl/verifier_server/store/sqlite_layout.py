"""SQLite layout: the tables, a record as a row of columns, and the migration from layout 1."""

import logging
import sqlite3
import time
from collections.abc import Iterator, Sequence
from typing import Any

from speciarl.category import LABELS, Category
from speciarl.verdict import Pair, Source, Verdict
from speciarl.verifier_server.store.record import (
    NOT_OURS,
    CorruptRecord,
    EntryReader,
    Record,
    checksum_of,
    verified,
)

LAYOUT = 2
"""Version of the layout, in `PRAGMA user_version`. Layout 1 kept a record as one blob, the bytes that Redis keeps."""

# One column per probability: SQL can average them, and unlike JSON they cost next to nothing to write and read.
# No NOT NULL: INSERT OR IGNORE would skip such a row silently, and the checksum detects nulls.
_COLUMNS = {
    "key": "BLOB PRIMARY KEY",
    "judge": "BLOB",
    "ground_truth": "TEXT",
    "prediction": "TEXT",
    "category": "TEXT",
    "margin": "REAL",
    **{f"p_{category.name.lower()}": "REAL" for category in Category},
    "created_us": "INTEGER",
    "checksum": "BLOB",
}
_NONE = [None] * len(Category)
_PROGRESS = 250_000

COLUMNS = ", ".join(_COLUMNS)
INTO_VERDICTS = f"INTO verdicts VALUES ({', '.join('?' * len(_COLUMNS))})"

_log = logging.getLogger(__name__)


def create(connection: sqlite3.Connection) -> None:
    """Create the tables that are missing."""
    columns = ", ".join(map(" ".join, _COLUMNS.items()))
    connection.execute(f"CREATE TABLE IF NOT EXISTS verdicts ({columns}) WITHOUT ROWID")
    columns = "fingerprint BLOB PRIMARY KEY NOT NULL, identity TEXT NOT NULL"
    connection.execute(f"CREATE TABLE IF NOT EXISTS judges ({columns}) WITHOUT ROWID")


def row_of(record: Record) -> tuple[Any, ...]:
    """The record as a row."""
    pair, verdict = record.pair, record.verdict
    return (
        record.key,
        record.judge,
        pair.ground_truth,
        pair.prediction,
        LABELS[verdict.category],
        verdict.margin,
        *(verdict.probabilities or _NONE),
        record.created_us,
        checksum_of(record),
    )


def record_of(key: bytes, row: Sequence[Any]) -> Record:
    """The record of a row, in which texts are bytes; raises CorruptRecord when any column was changed."""
    try:
        _, judge, truth, prediction, label, margin, *probabilities, created_us, checksum = row
        verdict = Verdict(
            Category.from_label(label.decode()),
            margin,
            Source.STORE,
            None if probabilities == _NONE else tuple(probabilities),
        )
        return verified(key, Record(judge, Pair(truth.decode(), prediction.decode()), verdict, created_us), checksum)
    except NOT_OURS as error:
        raise CorruptRecord(str(error)) from error


def migrate(connection: sqlite3.Connection, where: str) -> None:
    """Migrate a file of layout 1, within a transaction of the caller. Damaged entries are dropped."""
    total = connection.execute("SELECT count(*) FROM verdicts").fetchone()[0]
    _log.warning(
        "verdict store %s is of an older SpeciaRL; its %d entries are rewritten. Nothing is lost if a start gives up "
        "on that: `speciarl verifier store stats %s` does the same without a deadline",
        where,
        total,
        where,
    )
    begun = time.monotonic()
    for table in ("verdicts", "judges"):
        connection.execute(f"ALTER TABLE {table} RENAME TO {table}_1")
    create(connection)
    connection.execute("INSERT INTO judges SELECT fingerprint, CAST(content AS TEXT) FROM judges_1")
    reader = EntryReader(where)

    def rows() -> Iterator[tuple[Any, ...]]:
        entries = connection.execute("SELECT key, content FROM verdicts_1 ORDER BY key")
        for number, (key, content) in enumerate(entries, 1):
            record = reader.read(key, content)
            if record is not None:
                yield row_of(record)
            if number % _PROGRESS == 0:
                _log.warning("verdict store %s: %d of %d entries are rewritten", where, number, total)

    connection.executemany(f"INSERT {INTO_VERDICTS}", rows())
    for table in ("verdicts", "judges"):
        connection.execute(f"DROP TABLE {table}_1")
    _log.warning(
        "verdict store %s: %d entries are rewritten after %.0f s, and %d damaged ones dropped",
        where,
        total - reader.corrupt,
        time.monotonic() - begun,
        reader.corrupt,
    )
