"""Emoji facts: Unicode's emoji-test.txt, reduced to the committed table.

Regenerate the table (needs the PyPI package ``emoji`` for the aliases)::

    python -m data_prep emoji-facts --emoji-test emoji-test.txt --out data_prep/emoji/taxonomy.csv

``emoji-test.txt`` is published by Unicode and carried by Debian's package ``unicode-data``.
"""

from __future__ import annotations

import csv
import enum
import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from speciarl.answer import normalise
from speciarl.errors import DataPrepError


class Stratum(enum.StrEnum):
    """Familiarity stratum: how well the miniature policy learns a concept in pre-training."""

    KNOWN = "known"
    PARTIAL = "partial"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Fact:
    """A row of the emoji taxonomy: code points such as ``("1F436",)`` and normalised label strings."""

    codepoints: tuple[str, ...]
    group: str
    subgroup: str
    name: str
    aliases: tuple[str, ...]


@dataclass(frozen=True)
class Concept:
    """A selected fact with its position in the concept list, its domain and its familiarity stratum."""

    index: int
    fact: Fact
    domain: str
    stratum: Stratum

    @property
    def name(self) -> str:
        return self.fact.name

    @property
    def group(self) -> str:
        return self.fact.group

    @property
    def subgroup(self) -> str:
        return self.fact.subgroup

    @property
    def label_path(self) -> tuple[str, str, str]:
        """Group, subgroup and name: from the broadest label to the finest."""
        return (self.fact.group, self.fact.subgroup, self.fact.name)


GROUPS = ("Animals & Nature", "Food & Drink", "Travel & Places", "Objects")
COLUMNS = ("codepoints", "group", "subgroup", "name", "aliases")
NOTICE = (
    "# Facts derived from Unicode emoji-test.txt (Emoji 15.0), modified: four groups, reduced to these columns.",
    "# Copyright (c) 2022 Unicode, Inc. Unicode licence: see docs/ATTRIBUTION.md. Aliases: PyPI package emoji (BSD).",
)
_DASHES = re.compile("[-_\u2010-\u2015]")
_ENTRY = re.compile(r"^(?P<points>[0-9A-F ]+?)\s*;\s*fully-qualified\s*#\s*\S+\s+E[\d.]+\s+(?P<name>.+)$")
_HEADING = re.compile(r"^#\s*(?P<kind>group|subgroup):\s*(?P<title>.+)$")


def label(text: str) -> str:
    """The label string used everywhere: the answer normal form, with dashes opened into spaces."""
    return normalise(_DASHES.sub(" ", text))


def parse_emoji_test(lines: Iterable[str], aliases: Mapping[str, tuple[str, ...]]) -> list[Fact]:
    """Facts of the four groups in file order.

    ``aliases`` maps an emoji string to raw alias names. Raises ``DataPrepError`` when the file holds no such entry.
    """
    facts: list[Fact] = []
    group = subgroup = ""
    for line in lines:
        heading = _HEADING.match(line)
        if heading:
            if heading["kind"] == "group":
                group = heading["title"].strip()
            else:
                subgroup = heading["title"].strip()
            continue
        entry = _ENTRY.match(line.rstrip())
        if entry is None or group not in GROUPS:
            continue
        points = tuple(entry["points"].split())
        text = "".join(chr(int(point, 16)) for point in points)
        name = label(entry["name"])
        others = sorted({label(alias) for alias in aliases.get(text, ())} - {name, ""})
        facts.append(Fact(points, label(group), label(subgroup), name, tuple(others)))
    if not facts:
        raise DataPrepError("no fully-qualified emoji of the four groups found: is this Unicode's emoji-test.txt?")
    return facts


def package_aliases() -> dict[str, tuple[str, ...]]:
    """Alias names per emoji from the PyPI package ``emoji``. Raises ``DataPrepError`` when it is not installed."""
    try:
        import emoji
    except ImportError as error:
        raise DataPrepError("the package emoji is missing: pip install emoji") from error
    table: dict[str, tuple[str, ...]] = {}
    for text, entry in emoji.EMOJI_DATA.items():
        names = [str(entry["en"]), *map(str, entry.get("alias", []))]
        table[text] = tuple(name.strip(":") for name in names)
    return table


def to_csv(facts: Iterable[Fact]) -> str:
    """The table as CSV text with the licence notice as leading comment lines."""
    out = io.StringIO()
    out.write("\n".join(NOTICE) + "\n")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for fact in facts:
        writer.writerow((" ".join(fact.codepoints), fact.group, fact.subgroup, fact.name, "|".join(fact.aliases)))
    return out.getvalue()


def from_csv(text: str) -> list[Fact]:
    """Read what ``to_csv`` wrote. Raises ``DataPrepError`` when a column is missing."""
    rows = csv.DictReader(line for line in io.StringIO(text) if not line.startswith("#"))
    missing = [column for column in COLUMNS if column not in (rows.fieldnames or ())]
    if missing:
        raise DataPrepError(f"emoji taxonomy: column {missing[0]!r} is missing; expected {', '.join(COLUMNS)}")
    return [
        Fact(
            tuple(row["codepoints"].split()),
            row["group"],
            row["subgroup"],
            row["name"],
            tuple(alias for alias in row["aliases"].split("|") if alias),
        )
        for row in rows
    ]
