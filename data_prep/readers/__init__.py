"""Readers of the datasets, by name; each module is imported on demand."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from typing import Any

from data_prep.readers.base import Dataset
from speciarl.errors import DataPrepError

_PLACES = {
    "cub200": "data_prep.readers.cub200:Cub200",
    "aircraft": "data_prep.readers.aircraft:Aircraft",
    "flowers": "data_prep.readers.flowers:Flowers",
    "food": "data_prep.readers.food:Food",
    "pets": "data_prep.readers.pets:Pets",
    "cars": "data_prep.readers.cars:Cars",
    "caltech101": "data_prep.readers.caltech101:Caltech101",
    "emoji": "data_prep.emoji.reader:Emoji",
    "image_folder": "data_prep.readers.image_folder:ImageFolder",
    "manifest": "data_prep.readers.manifest:Manifest",
    "hub": "data_prep.readers.hub:Hub",
}

NAMES = tuple(_PLACES)


def load(name: str, options: Mapping[str, Any] | None = None) -> Dataset:
    """The reader of a dataset; `options` are the fields of its class. Reads no data.

    Raises DataPrepError for an unknown name or option and for an option of the wrong type.
    """
    from pydantic import TypeAdapter, ValidationError

    from speciarl.utils.wrong_keys import meant

    if name not in _PLACES:
        raise DataPrepError(f"there is no dataset '{name}'; {meant(name, NAMES)}")
    module, _, kind = _PLACES[name].partition(":")
    reader: Any = getattr(importlib.import_module(module), kind)
    known = [field.name for field in dataclasses.fields(reader)]
    for option in options or {}:
        if option not in known:
            raise DataPrepError(f"{name} has no option '{option}'; {meant(option, known)}")
    try:
        made: Dataset = TypeAdapter(reader).validate_python(dict(options or {}))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "options"
        raise DataPrepError(f"{name}: option {where}: {first['msg']} (it is {first['input']!r})") from error
    return made
