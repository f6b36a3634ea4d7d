"""Files of the verdict log: each is written whole or not at all, and tells in its footer what it adds up to."""

import contextlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from speciarl.errors import ConfigError
from speciarl.verifier_server.service.log_rows import SCHEMA, Counts, Row

_COUNTS = b"speciarl.counts"
_NAME = re.compile(r"part-(\d{6,})-([0-9a-f]{8})\.parquet")


@dataclass(frozen=True, order=True)
class PartName:
    """Place of a file among its run's files."""

    number: int
    writer: str
    """Eight hexadecimal digits that no other service has: a number whose rows were lost may be used again."""

    @property
    def file(self) -> str:
        """Name of the finished file."""
        return f"part-{self.number:06d}-{self.writer}.parquet"

    @classmethod
    def parse(cls, file: str) -> "PartName | None":
        """The place of a finished file; None for any other file."""
        match = _NAME.fullmatch(file)
        return cls(int(match[1]), match[2]) if match else None


def write_part(directory: Path, name: PartName, rows: Sequence[Row]) -> None:
    """Write rows as a finished file; raises OSError, and then there is no such file."""
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
    _sync_directory(directory)


def read_part(directory: Path, name: PartName) -> list[Row]:
    """All rows of a finished file; raises OSError."""
    rows: list[Row] = pq.read_table(directory / name.file, schema=SCHEMA).to_pylist()
    return rows


def finished_parts(directory: Path) -> list[PartName]:
    """The run's finished files in order; what a killed service left half-written is removed.

    Only for the one service that writes there.
    """
    for leftover in directory.glob(".part-*.tmp"):
        leftover.unlink(missing_ok=True)
    names = (PartName.parse(file.name) for file in directory.iterdir())
    return sorted(name for name in names if name is not None)


def read_counts(directory: Path, name: PartName) -> Counts:
    """What a finished file adds up to, from its footer; raises ConfigError for a file that is none of ours."""
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
