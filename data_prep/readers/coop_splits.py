"""CoOp splits, for datasets without (or with other) official ones: `split_zhou_<Name>.json` or `split_coop.csv`."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from data_prep.readers.base import About
from data_prep.readers.parsing import text
from speciarl.errors import DataPrepError

PREFIX = "coop_"
SPLITS = ("coop_train", "coop_val", "coop_test")
CSV = "split_coop.csv"
"""The same splits with the columns `filename` (CLASS/IMAGE) and `split`, as lmms-owc and others keep them."""
HOME = "https://github.com/KaiyangZhou/CoOp/blob/main/DATASETS.md"


def split_file(about: About, given: Path | None, name: str, *folders: Path) -> Path:
    """Path of the split file: `given`, else `name` or `CSV` in one of the folders. Raises DataPrepError when it is
    missing."""
    places = [given] if given else [folder / file for file in (name, CSV) for folder in folders]
    for place in places:
        if place.is_file():
            return place
    raise DataPrepError(
        f"{places[0]}: no such file; the splits {PREFIX}* of {about.name} need CoOp's {name}, or a {CSV}: "
        f"follow {HOME} and put it there, or name it with the option coop_split; "
        f"dataset={about.name} builds the official split"
    )


def rows(file: Path, split: str, classes: Sequence[str] = ()) -> Iterator[tuple[int, str, int]]:
    """Row (from 1), image path and class index (from 0) of each image of `coop_train`, `coop_val` or `coop_test`.

    A CSV file has class directories in place of indices: `classes` are their names in the order of the indices, and may
    be left out where the index does not matter; it is 0 then. Raises DataPrepError for a file of another form.
    """
    if file.suffix == ".csv":
        yield from _csv(file, split.removeprefix(PREFIX), classes)
        return
    try:
        content = json.loads(text(file))
    except json.JSONDecodeError as error:
        raise DataPrepError(f"{file}: not JSON (line {error.lineno}: {error.msg}); fetch it again") from error
    part = split.removeprefix(PREFIX)
    if not isinstance(content, dict) or not isinstance(content.get(part), list):
        raise DataPrepError(f"{file}: there is no list '{part}'; is this a split file of CoOp?")
    for row, entry in enumerate(content[part], 1):
        match entry:
            case [str(image), int(index), str()] if image and not isinstance(index, bool):  # to Python, true is 1
                yield row, image, index
            case _:
                raise DataPrepError(f"{file}, {part} row {row}: [image, class index, class name] expected, is {entry}")


def _csv(file: Path, part: str, classes: Sequence[str]) -> Iterator[tuple[int, str, int]]:
    numbers = {name: index for index, name in enumerate(classes)}
    reader = csv.DictReader(io.StringIO(text(file), newline=""))
    for row in reader:
        image, of = row.get("filename"), row.get("split")
        if not image or not of:
            raise DataPrepError(f"{file}, row {reader.line_num}: the columns filename and split expected, is {row}")
        if of != part:
            continue
        folder = PurePosixPath(image).parent.name
        if classes and folder not in numbers:
            raise DataPrepError(f"{file}, row {reader.line_num}: there is no class {folder!r}; is it of this dataset?")
        yield reader.line_num, image, numbers.get(folder, 0)


def fault(file: Path, split: str, row: int, what: str) -> DataPrepError:
    """An error about an entry of a split file."""
    return DataPrepError(f"{file}, {split.removeprefix(PREFIX)} row {row}: {what}; is it the split of this dataset?")
