"""Manifest: the user's own pictures, listed in a CSV or JSONL file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.readers.base import About, Picture, Sample
from data_prep.readers.class_names import named
from data_prep.readers.parsing import refuse_no_path
from speciarl.errors import DataPrepError

ALL = "all"
SUFFIXES = (".csv", ".jsonl")


@dataclass(frozen=True)
class Manifest:
    """Reader of rows with an image path (relative to the file) and a label; labels stay as they are written."""

    name: str = "manifest"
    """Name of the dataset in ids and in `data_source`."""
    file: str = ""
    """The file within the root; by default the only .csv or .jsonl in it. The root may also be the file itself."""
    image_column: str = "image"
    label_column: str = "label"
    split_column: str = "split"
    """Where no row has it, `all` is the only split."""
    label_path_column: str = "label_path"
    """From the broadest to the finest name, ending with the label: a list, or text with `separator` between names."""
    separator: str = ">"
    verbatim: bool = False
    """Take labels that are bare numbers for names, instead of looking for the names beside the file."""

    @property
    def about(self) -> About:
        return About(
            name=self.name,
            title="Manifest",
            version="",
            licence="your own",
            homepage="",
            archives=(),
            splits=(),
            published_counts={},
            published_classes=None,
            levels=(),
        )

    def samples(self, root: Path, split: str) -> Iterator[Sample]:
        """`split` is a value of the split column, or `all` for every row."""
        file = self._file(root)
        rows = list(_csv(file) if file.suffix == ".csv" else _jsonl(file))
        labels = {str(row.get(self.label_column)) for _, row in rows}
        names = {} if self.verbatim else named(labels, [file.parent], "options.verbatim=true")
        splits: set[str] = set()
        found = False
        for number, row in rows:
            of_row = self._text(file, number, row, self.split_column) if row.get(self.split_column) else ALL
            splits.add(of_row)
            if split in (of_row, ALL):
                found = True
                yield self._sample(file, number, row, split, names)
        if not splits:
            raise DataPrepError(f"{file}: no rows in it")
        if not found:
            raise DataPrepError(
                f"{file}: no row with {self.split_column} '{split}'; there are {', '.join(sorted(splits))}"
            )

    def _sample(self, file: Path, number: int, row: Mapping[str, Any], split: str, names: Mapping[str, str]) -> Sample:
        image = self._text(file, number, row, self.image_column)
        refuse_no_path(image, f"{file}, row {number}: {self.image_column}")
        label = self._text(file, number, row, self.label_column)
        given = row.get(self.label_path_column)
        if isinstance(given, str):
            given = [name.strip() for name in given.split(self.separator)] if given.strip() else None
        if given is not None and not (isinstance(given, list) and all(isinstance(n, str) and n for n in given)):
            raise _fault(file, number, f"{self.label_path_column} is {given!r}, not a list of names")
        path = tuple(given or (label,))
        if path[-1] != label:
            raise _fault(file, number, f"{self.label_path_column} ends with '{path[-1]}', not with the label '{label}'")
        path = tuple(names.get(name, name) for name in path)
        return Sample(
            id=f"{self.name}/{image}",
            picture=Picture(
                where=f"{file.name}, row {number}",
                path=file.parent / image,
                remedy=f"correct row {number} of {file.name}",
            ),
            label=path[-1],
            label_path=path,
            split=split,
            class_key=" > ".join(path),
        )

    def _text(self, file: Path, number: int, row: Mapping[str, Any], column: str) -> str:
        value = row.get(column)
        if value is None and column not in row:
            raise _fault(file, number, f"there is no column '{column}', only {', '.join(map(str, row))}")
        if isinstance(value, int) and not isinstance(value, bool) and column == self.label_column:
            value = str(value)  # a class number, of which there may be names
        if not isinstance(value, str) or not value.strip():
            raise _fault(file, number, f"{column} is {value!r}, text expected")
        return value.strip()

    def _file(self, root: Path) -> Path:
        if root.is_file():
            files = [root]
        elif self.file:
            files = [root / self.file]
        elif root.is_dir():
            files = sorted(child for child in root.iterdir() if child.suffix in SUFFIXES)
        else:
            raise DataPrepError(f"{root}: no such folder or file")
        if len(files) != 1:
            names = ", ".join(file.name for file in files) or "none"
            raise DataPrepError(f"{root}: one .csv or .jsonl expected, there is {names}; name one with options.file")
        if files[0].suffix not in SUFFIXES:
            raise DataPrepError(f"{files[0]}: the name has to end with {' or '.join(SUFFIXES)}")
        return files[0]


def _csv(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number (the header is line 1) and columns; a missing column is absent from the row."""
    # newline="": the csv module itself handles line breaks, those inside of quotes included.
    reader = csv.DictReader(io.StringIO(_text(file), newline=""), strict=True)
    try:
        for row in reader:
            if None in row or None in row.values():
                raise _fault(file, reader.line_num, f"{len(reader.fieldnames or ())} columns expected as in the header")
            yield reader.line_num, row
    except csv.Error as error:
        raise _fault(file, reader.reader.line_num, str(error)) from error


def _jsonl(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    # Not splitlines(), which also splits at characters that JSON strings may hold, such as U+2028.
    for number, line in enumerate(_text(file).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise _fault(file, number, f"not JSON ({error.msg} at column {error.colno})") from error
        if not isinstance(row, dict):
            raise _fault(file, number, "a JSON object expected")
        yield number, row


def _text(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8-sig")  # spreadsheets write a byte order mark
    except OSError as error:
        raise DataPrepError(f"{file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataPrepError(f"{file}: not UTF-8 text (byte {error.start}); save it as UTF-8") from error


def _fault(file: Path, row: int, what: str) -> DataPrepError:
    return DataPrepError(f"{file}, row {row}: {what}")
