"""CoOp's splits, for datasets without (or with other) official ones: `split_zhou_<Name>.json`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from data_prep.readers.base import About
from data_prep.readers.parsing import text
from speciarl.errors import DataPrepError

PREFIX = "coop_"
SPLITS = ("coop_train", "coop_val", "coop_test")
HOME = "https://github.com/KaiyangZhou/CoOp/blob/main/DATASETS.md"


def split_file(about: About, given: Path | None, name: str, *folders: Path) -> Path:
    """Path of the split file: `given`, else `name` in one of the folders. Raises DataPrepError when it is missing."""
    places = [given] if given else [folder / name for folder in folders]
    for place in places:
        if place.is_file():
            return place
    raise DataPrepError(
        f"{places[0]}: no such file; the splits {PREFIX}* of {about.name} need CoOp's {name}: "
        f"follow {HOME} and put it there, or name it with the option coop_split; "
        f"dataset={about.name} builds the official split"
    )


def rows(file: Path, split: str) -> Iterator[tuple[int, str, int]]:
    """Row (from 1), image path and class index (from 0) of each image of `coop_train`, `coop_val` or `coop_test`.

    Raises DataPrepError for a file of another form.
    """
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


def fault(file: Path, split: str, row: int, what: str) -> DataPrepError:
    """An error about an entry of a split file."""
    return DataPrepError(f"{file}, {split.removeprefix(PREFIX)} row {row}: {what}; is it the split of this dataset?")
