"""Wrong keys: what a message on one says, with what may have been meant."""

import difflib
from collections.abc import Iterable, Sequence
from typing import get_args

from pydantic import BaseModel, ValidationError

Location = Sequence[int | str]


def meant(word: object, known: Iterable[str]) -> str:
    """The nearest known word, or all of them where none is near."""
    words = sorted(known)
    close = difflib.get_close_matches(str(word), words, n=1)
    if close:
        return f"did you mean {close[0]}?"
    return f"known: {', '.join(words)}" if words else "there are none"


def describe(error: ValidationError, model: type[BaseModel], at: str = "") -> str:
    """Every wrong key of what was validated against `model`, in one line. `at` is where the user wrote it."""
    problems = []
    for problem in error.errors(include_url=False):
        location = problem["loc"]
        key = ".".join((*filter(None, [at]), *map(str, location))) or model.__name__
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = f"there is no such key; {meant(location[-1], _fields(model, location[:-1]))}"
        problems.append(f"{key}: {message}")
    return "; ".join(problems)


def _fields(model: type[BaseModel], path: Location) -> list[str]:
    """Keys beside a wrong one; a key of a mapping leads to the model of its values."""
    for part in path:
        field = model.model_fields.get(str(part))
        if field is None:
            continue
        candidates = (field.annotation, *get_args(field.annotation))
        model = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), model)
    return list(model.model_fields)
