"""Names of classes as a person would write them."""

from __future__ import annotations

import re

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
