"""Parsing of the small files that describe a dataset; every fault names file, row and remedy."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from data_prep.readers.base import About
from speciarl.errors import DataPrepError

LONGEST_PATH = 4096
"""Characters in a path, at most, on Linux."""


def check_split(about: About, split: str) -> None:
    """Raise DataPrepError unless the dataset has that split."""
    if split not in about.splits:
        raise DataPrepError(f"{about.name} has no split '{split}'; there are {', '.join(about.splits)}")


def find(about: About, root: Path, witness: str) -> Path:
    """Path of a file of the dataset, found by its published path such as `CUB_200_2011/images.txt`.

    `root` may be the folder into which the archive was unpacked, or a folder on the way to the file; copies from
    elsewhere often have that folder in one of the same name. Raises DataPrepError when it is at none of these places.
    """
    parts = PurePosixPath(witness).parts
    for depth in range(len(parts)):
        for file in (root.joinpath(*parts[depth:]), root.joinpath(parts[depth], *parts[depth:])):
            if file.exists():
                return file
    raise DataPrepError(
        f"{root}: {about.name} is not there ({witness} is missing); run `python -m data_prep fetch {about.name}`, "
        "or give the folder into which you unpacked its archive"
    )


def undoubled(folder: Path) -> Path:
    """The folder, or the one of the same name inside of it, where a copy from elsewhere has that."""
    inner = folder / folder.name
    return inner if inner.is_dir() else folder


def text(file: Path) -> str:
    """The whole file as UTF-8. Raises DataPrepError when it is missing or not text."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataPrepError(f"{file}: not UTF-8 text (byte {error.start}); unpack the archive again") from error
    except OSError as error:
        raise DataPrepError(f"{file}: {error.strerror}; unpack the archive again") from error


def refuse_no_path(value: str, what: str) -> None:
    """Raise DataPrepError for text in place of an image's path that is none: a URL, or the image itself in base64."""
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+://", value):
        raise DataPrepError(f"{what} is the URL {value[:200]!r}; download the images, and give their paths")
    if value.startswith("data:") or len(value) > LONGEST_PATH:
        raise DataPrepError(
            f"{what} is {len(value)} characters of text ({value[:24]!r}…), base64 perhaps: decode it to files"
        )


def rows(file: Path, columns: int = 1) -> Iterator[tuple[int, list[str]]]:
    """Row number (from 1) and columns of each line that is not blank; the last column keeps its spaces.

    Raises DataPrepError for a missing file and for a line with too few columns.
    """
    for number, line in enumerate(text(file).splitlines(), 1):
        if line.strip():
            found = line.strip().split(maxsplit=columns - 1)
            if len(found) < columns:
                raise fault(file, number, f"{columns} columns expected, found '{line.strip()}'")
            yield number, found


def fault(file: Path, row: int, what: str) -> DataPrepError:
    """An error about a row of a file of an archive."""
    return DataPrepError(f"{file}, row {row}: {what}; unpack the archive again")


def whole_number(file: Path, row: int, text: str, among: Sequence[int] | range | None = None) -> int:
    """The whole number in a column. Raises DataPrepError when it is none, or not one of `among`."""
    try:
        number = int(text)
    except ValueError:
        raise fault(file, row, f"a whole number expected, found '{text}'") from None
    if among is not None and number not in among:
        raise fault(file, row, f"{number} is not one of {_shown(among)}")
    return number


def _shown(numbers: Sequence[int] | range) -> str:
    if isinstance(numbers, range):
        return f"{numbers.start} to {numbers.stop - 1}"
    return ", ".join(map(str, numbers)) if len(numbers) < 8 else f"the {len(numbers)} known"


def matlab(file: Path, *variables: str) -> list[Any]:
    """Variables of a MATLAB file (level 5, as the datasets have them), without singleton dimensions, as 1-d arrays.

    Raises DataPrepError when the file is missing, is none, or lacks a variable.
    """
    import numpy as np
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    if not file.is_file():
        raise DataPrepError(f"{file}: no such file; unpack or fetch it again")
    unreadable = (OSError, EOFError, ValueError, TypeError, LookupError, NotImplementedError, zlib.error, struct.error)
    try:
        content = loadmat(file, squeeze_me=True)
    except (*unreadable, MatReadError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataPrepError(f"{file}: not a readable MATLAB file ({reason}); fetch it again") from error
    missing = [name for name in variables if name not in content]
    if missing:
        raise DataPrepError(f"{file}: there is no variable '{missing[0]}'; is this the dataset's own file?")
    return [np.atleast_1d(content[name]) for name in variables]


def matlab_numbers(file: Path, variable: str) -> list[int]:
    """A variable of whole numbers. Raises DataPrepError like `matlab`, and when it holds something else."""
    (values,) = matlab(file, variable)
    if values.dtype.kind not in "uif" or values.ndim != 1:
        raise DataPrepError(f"{file}: '{variable}' is not a list of numbers; is this the dataset's own file?")
    return [int(value) for value in values]


# A number before the name (`001.`, `01_`) or a WordNet id (`n02085620-`). A lone digit counts only before a full stop,
# and a hyphen never follows a number, so `3_series` and `737-700` stay whole.
_PREFIX = re.compile(r"(?:\d{2,}[._]|\d\.|n\d{8}[-_.])[\s_]*(?=[^\W\d_])")


def readable(name: str) -> str:
    """The name of a class or directory without numbering, with spaces for underscores; idempotent.

    `001.Black_footed_Albatross` -> `Black footed Albatross`, `n02085620-Chihuahua` -> `Chihuahua`. Empty when nothing
    but underscores and spaces is there.
    """
    name = re.sub(r"[\s_]+$|^[\s_]+", "", name)
    while prefix := _PREFIX.match(name):
        name = name[prefix.end() :]
    return " ".join(re.split(r"[\s_]+", name)).strip()
