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
    "classes.txt", "class_names.txt", "labels.txt", "names.txt", "LOC_synset_mapping.txt", "imagenet_class_index.json",
)  # fmt: skip
"""Names files that are looked for: a JSON object or list, or text with one class a line."""

_NUMBERED = re.compile(r"(\d+|n\d{8})(?:[\s,;:.)]+)(\S.*)")
_NAMELESS = re.compile(r"(?:(?:class|label|category|cls)[\s_-]*)?([-+]?\d+)(?:\.0+)?|(n\d{8})", re.IGNORECASE)
"""A number, as tables write it too (`3.0`), also behind a word that says no more; or an id of WordNet."""


def key_of(label: str) -> str | None:
    """What a names file calls a label that names nothing: its number in digits, or its id; None for a name."""
    found = _NAMELESS.fullmatch(label.strip())
    if found is None:
        return None
    return str(int(found[1])) if found[1] else found[2].lower()


def is_number(label: str) -> bool:
    """Whether a label is a number or an id, which name nothing that an answer could be compared with."""
    return key_of(label) is not None


def named(labels: Collection[str], folders: Collection[Path], override: str) -> Mapping[str, str]:
    """Names for the labels that are bare numbers, from a names file in one of the folders; empty where there are none.

    `override` is the option by which a user says that numbers are the names, as of digits.

    Raises DataPrepError, with the remedy, where there is no such file or it does not name all of them.
    """
    numbers = {label: key for label in labels if (key := key_of(label)) is not None}
    if not numbers:
        return {}
    first = min(numbers, key=lambda label: (len(numbers[label]), numbers[label], label))
    file = next((folder / name for folder in folders for name in FILES if (folder / name).is_file()), None)
    if file is None:
        places = " or ".join(dict.fromkeys(str(folder) for folder in folders))
        where = f"{places}: " if places else ""
        raise DataPrepError(
            f"{where}the class {first!r} is a number, which names nothing; put {FILES[0]} "
            f'({{"{numbers[first]}": "its name", …}}) or {FILES[5]} there, rename it, or set {override} if numbers are '
            "the names"
        )
    names = _read(file, set(numbers.values()))
    missing = sorted(label for label, key in numbers.items() if key not in names)
    if missing:
        raise DataPrepError(f"{file}: it has no name for the class {missing[0]!r}; add it")
    return {label: names[key] for label, key in numbers.items()}


def _read(file: Path, keys: Collection[str]) -> dict[str, str]:
    """Names by `key_of`. A list counts from 0 where a class 0 is used, and from 1 where the last one is its length."""
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
        if not all(map(str.isdecimal, keys)):
            raise DataPrepError(f"{file}: a list, but classes such as {max(keys)!r}; write each before its name")
        numbers = set(map(int, keys))
        if 0 not in numbers and max(numbers) != len(content):
            raise DataPrepError(
                f"{file}: {len(content)} names for classes {min(numbers)} to {max(numbers)}: is the first one 0 or 1? "
                "Write each number before its name"
            )
        content = {str(number): name for number, name in enumerate(content, 0 if 0 in numbers else 1)}
    if isinstance(content, dict) and all(isinstance(name, list) and len(name) == 2 for name in content.values()):
        content = dict(content.values())  # of ImageNet: number -> [id, name]
    if not isinstance(content, dict) or not all(isinstance(name, str) and name.strip() for name in content.values()):
        raise DataPrepError(f"{file}: an object from numbers to names, or a list of names, expected")
    unknown = next((key for key in content if key_of(str(key)) is None), None)
    if unknown is not None:
        raise DataPrepError(f"{file}: its keys have to be the classes' numbers or ids, not {unknown!r}")
    return {str(key_of(str(key))): name.strip() for key, name in content.items()}
