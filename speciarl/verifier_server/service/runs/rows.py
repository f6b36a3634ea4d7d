"""Verdict log rows: their columns, and the parquet files that hold them."""

import contextlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from speciarl.errors import ConfigError
from speciarl.verdict import Judgement, Pair, Verdict
from speciarl.verifier_server.service.judges import Judge

SCHEMA = pa.schema(
    [
        pa.field("time", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("judge", pa.string(), nullable=False),
        pa.field("model", pa.string()),
        pa.field("revision", pa.string()),
        pa.field("prompt", pa.string()),
        pa.field("prompt_hash", pa.string()),
        pa.field("decoding", pa.string()),
        pa.field("pair_id", pa.string()),
        pa.field("ground_truth", pa.string(), nullable=False),
        pa.field("prediction", pa.string(), nullable=False),
        pa.field("category", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("detail", pa.string()),
        pa.field("margin", pa.float64()),
        pa.field("probabilities", pa.list_(pa.float64())),
        pa.field("source", pa.string()),
        pa.field("extra_info", pa.string()),
    ]
)
"""Exactly one of `category` and `reason` is null. `extra_info` is JSON text."""

COUNTED = ("judge", "category", "source", "reason")
"""Columns by whose values the rows are counted."""

Row = dict[str, Any]


def make_row(
    judge: Judge, pair: Pair, judgement: Judgement, pair_id: str | None = None, extra_info: str | None = None
) -> Row:
    """The row of one pair, judged now."""
    scored = judgement if isinstance(judgement, Verdict) else None
    failed = None if isinstance(judgement, Verdict) else judgement
    return {
        "time": datetime.now(UTC),
        "judge": judge.name,
        "model": judge.config.model,
        "revision": judge.config.revision,
        "prompt": judge.prompt,
        "prompt_hash": judge.prompt_hash,
        "decoding": judge.decoding,
        "pair_id": pair_id,
        "ground_truth": pair.ground_truth,
        "prediction": pair.prediction,
        "category": scored.category.label if scored else None,
        "reason": failed.reason.value if failed else None,
        "detail": failed.detail if failed else None,
        "margin": scored.margin if scored else None,
        "probabilities": list(scored.probabilities) if scored and scored.probabilities else None,
        "source": scored.source.value if scored else None,
        "extra_info": extra_info,
    }


@dataclass
class Counts:
    """Counts of a run's rows, and the times of the first and the last."""

    pairs: int = 0
    first: datetime | None = None
    last: datetime | None = None
    by: dict[str, Counter[str]] = field(default_factory=lambda: {name: Counter() for name in COUNTED})
    """For each of COUNTED, rows by value; null is not counted."""

    def add_rows(self, rows: Iterable[Row]) -> None:
        """Count rows."""
        for row in rows:
            self.pairs += 1
            self._extend_span(row["time"], row["time"])
            for name in COUNTED:
                if row[name] is not None:
                    self.by[name][row[name]] += 1

    def add(self, other: "Counts") -> None:
        """Add the counts of another."""
        self.pairs += other.pairs
        if other.first is not None and other.last is not None:
            self._extend_span(other.first, other.last)
        for name in COUNTED:
            self.by[name].update(other.by[name])

    def as_json(self) -> dict[str, Any]:
        """The counts as plain data, for `from_json`."""
        times = {"first": self.first and self.first.isoformat(), "last": self.last and self.last.isoformat()}
        return {"pairs": self.pairs, **times, "by": {name: dict(counter) for name, counter in self.by.items()}}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The counts that `as_json` wrote; raises KeyError, TypeError or ValueError for anything else."""
        first, last = (None if data[key] is None else datetime.fromisoformat(data[key]) for key in ("first", "last"))
        return cls(int(data["pairs"]), first, last, {name: Counter(data["by"][name]) for name in COUNTED})

    def _extend_span(self, first: datetime, last: datetime) -> None:
        self.first = first if self.first is None else min(self.first, first)
        self.last = last if self.last is None else max(self.last, last)


_COUNTS = b"speciarl.counts"
_NAME = re.compile(r"part-(\d{6,})-([0-9a-f]{8})\.parquet")


@dataclass(frozen=True, order=True)
class PartName:
    """Name of a file of a run, in the order of the files."""

    number: int
    writer: str
    """Eight random hexadecimal digits of its service, as a number whose rows were lost may be used again."""

    @property
    def file(self) -> str:
        """File name of the finished file."""
        return f"part-{self.number:06d}-{self.writer}.parquet"

    @classmethod
    def parse(cls, file: str) -> "PartName | None":
        """The part name in a file name; None for any file that is no finished one."""
        match = _NAME.fullmatch(file)
        return cls(int(match[1]), match[2]) if match else None


def write_part(directory: Path, name: PartName, rows: Sequence[Row]) -> None:
    """Write rows to a file that appears only when it is complete; raises OSError, and then there is none."""
    counts = Counts()
    counts.add_rows(rows)
    table = pa.Table.from_pylist(list(rows), schema=SCHEMA)
    table = table.replace_schema_metadata({_COUNTS: json.dumps(counts.as_json())})
    directory.mkdir(parents=True, exist_ok=True)
    temporary = directory / f".{name.file}.tmp"
    try:
        with temporary.open("wb") as file:
            pq.write_table(table, file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, directory / name.file)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    _sync_directory(directory)  # makes the rename durable


def read_part(directory: Path, name: PartName) -> list[Row]:
    """All rows of a finished file; raises OSError."""
    rows: list[Row] = pq.read_table(directory / name.file, schema=SCHEMA).to_pylist()
    return rows


def finished_parts(directory: Path) -> list[PartName]:
    """Names of the run's finished files in order; removes files that a killed service left half-written.

    Only for the one service that writes there.
    """
    for leftover in directory.glob(".part-*.tmp"):
        leftover.unlink(missing_ok=True)
    names = (PartName.parse(file.name) for file in directory.iterdir())
    return sorted(name for name in names if name is not None)


def read_counts(directory: Path, name: PartName) -> Counts:
    """Counts of a finished file, from its footer; raises ConfigError for a file that is not ours."""
    path = directory / name.file
    try:
        metadata = pq.read_schema(path).metadata or {}
        return Counts.from_json(json.loads(metadata[_COUNTS]))
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path} is no part of a verdict log ({type(error).__name__}); move it elsewhere") from error


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
