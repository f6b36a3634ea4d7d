"""Make, model and year out of a class name of Stanford Cars."""

from __future__ import annotations

import re

# Every make of the dataset that is more than one word; a hyphenated one (Mercedes-Benz, Rolls-Royce) is one word.
LONG_MAKES = ("AM General", "Aston Martin", "Land Rover")
_YEAR = re.compile(r"(?:19|20)\d\d")


def car_path(name: str) -> tuple[str, str, str]:
    """`Land Rover LR2 SUV 2012` -> (`Land Rover`, `Land Rover LR2 SUV`, `Land Rover LR2 SUV 2012`).

    Each level is a name that stands for itself. The first word is the make unless the name begins with one of
    `LONG_MAKES`: `Ram C/V Cargo Van Minivan 2012` is a Ram, `Dodge Ram Pickup 3500 Crew Cab 2010` a Dodge. Raises
    ValueError when the last word is no year or nothing stands between make and year.
    """
    words = name.split()
    whole = " ".join(words)
    make = next((make for make in LONG_MAKES if whole.startswith(f"{make} ")), words[0] if words else "")
    if not words or not _YEAR.fullmatch(words[-1]):
        raise ValueError(f"'{whole}' does not end with a year")
    model = " ".join(words[:-1])
    if model in (make, ""):
        raise ValueError(f"'{whole}' has no model between make and year")
    return make, model, whole
