"""Class names: what the numbers stand for that a dataset's folders or columns have in place of names."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from data_prep.readers.parsing import text
from speciarl.errors import DataPrepError

FILES = (
    "cat_to_name.json", "class_names.json", "classes.json", "labels.json", "names.json",
    "classes.txt", "class_names.txt", "labels.txt", "names.txt",
)  # fmt: skip
"""Names files that are looked for: a JSON object or list, or text with one class a line."""

_NUMBERED = re.compile(r"(\d+)(?:[\s,;:.)]+)(\S.*)")


def is_number(label: str) -> bool:
    """Whether a label is a bare number, which names nothing that an answer could be compared with."""
    return label.strip().isdecimal()


def named(labels: Collection[str], folders: Collection[Path], override: str) -> Mapping[str, str]:
    """Names for the labels that are bare numbers, from a names file in one of the folders; empty where there are none.

    `override` is the option by which a user says that numbers are the names, as of digits.

    Raises DataPrepError, with the remedy, where there is no such file or it does not name all of them.
    """
    numbers = {label for label in labels if is_number(label)}
    if not numbers:
        return {}
    first = min(numbers, key=int)
    file = next((folder / name for folder in folders for name in FILES if (folder / name).is_file()), None)
    if file is None:
        places = " or ".join(dict.fromkeys(str(folder) for folder in folders))
        where = f"{places}: " if places else ""
        raise DataPrepError(
            f"{where}the class {first!r} is a number, which names nothing; put {FILES[0]} "
            f'({{"{first}": "its name", …}}) or {FILES[5]} there, rename it, or set {override} if numbers are the names'
        )
    names = _read(file, {int(number) for number in numbers})
    missing = sorted((number for number in numbers if int(number) not in names), key=int)
    if missing:
        raise DataPrepError(f"{file}: it has no name for the class {missing[0]!r}; add it")
    return {number: names[int(number)] for number in numbers}


def _read(file: Path, numbers: Collection[int]) -> dict[int, str]:
    """Names by number. A list counts from 0 where a class 0 is used, and from 1 where the last one is its length."""
    if file.suffix == ".json":
        try:
            content: Any = json.loads(text(file))
        except json.JSONDecodeError as error:
            raise DataPrepError(f"{file}: not JSON ({error.msg}, line {error.lineno})") from error
    else:
        lines = [line.strip() for line in text(file).splitlines() if line.strip()]
        pairs = [_NUMBERED.fullmatch(line) for line in lines]
        content = {pair[1]: pair[2] for pair in pairs if pair} if lines and all(pairs) else lines
    if isinstance(content, list):
        if 0 not in numbers and max(numbers) != len(content):
            raise DataPrepError(
                f"{file}: {len(content)} names for classes {min(numbers)} to {max(numbers)}: is the first one 0 or 1? "
                "Write each number before its name"
            )
        content = dict(enumerate(content, 0 if 0 in numbers else 1))
    if not isinstance(content, dict) or not all(isinstance(name, str) and name.strip() for name in content.values()):
        raise DataPrepError(f"{file}: an object from numbers to names, or a list of names, expected")
    try:
        return {int(number): name.strip() for number, name in content.items()}
    except ValueError as error:
        raise DataPrepError(f"{file}: its keys have to be the classes' numbers ({error})") from error
