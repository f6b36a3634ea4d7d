"""Tables of results for the terminal."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.table import Table

from data_prep.checks.inspection import Contents, size_line
from data_prep.pipeline.report import Report
from data_prep.readers.base import About

_MOST_LISTED = 10


def datasets(abouts: Iterable[About], console: Console) -> None:
    """Table of datasets, one a line: images by split, classes, levels, licence."""
    table = Table("dataset", "images by split", "classes", "levels", "licence", box=None, pad_edge=False)
    for about in abouts:
        counts = ", ".join(f"{split} {count}" for split, count in about.published_counts.items()) or "as you have"
        classes = "-" if about.published_classes is None else str(about.published_classes)
        table.add_row(about.name, counts, classes, " > ".join(about.levels) or "as you have", about.licence)
    console.print(table)


def built(report: Report, console: Console) -> None:
    """Tables of what a build wrote and of everything that was wrong with the data."""
    table = Table(
        "file", "rows", "classes", "MB", "bytes/image", "unchanged", "encoded again", box=None, pad_edge=False
    )
    for name, file in report.files.items():
        table.add_row(
            f"{name}.parquet",
            str(file.rows),
            str(len(file.labels)),
            f"{file.file_bytes / 1e6:.1f}",
            f"{file.image_bytes / file.rows:.0f}",
            str(file.unchanged),
            ", ".join(f"{count} {reason}" for reason, count in sorted(file.changes.items())) or "0",
        )
    console.print(table)
    for name, file in report.files.items():
        if len(file.sources) > 1:
            console.print(f"{name}: {_counted(file.sources)}")
        if file.few_shot_short:
            console.print(f"{name}: {len(file.few_shot_short)} classes have fewer samples than per_class")
    if report.equal_images:
        console.print(f"equal images by {report.dedup}: {len(report.equal_images)}, listed in report.json")
    if report.problems:
        oddities = Table("left out or odd", "", box=None, pad_edge=False)
        for problem in report.problems[:_MOST_LISTED]:
            oddities.add_row(problem.kind, f"{problem.source} {problem.where}: {problem.detail}")
        more = len(report.problems) - _MOST_LISTED
        console.print(oddities)
        if more > 0:
            console.print(f"and {more} more, all listed in report.json")


def contents(found: Contents, console: Console) -> None:
    """Table of the contents of one file."""
    table = Table(str(found.file), "", box=None, pad_edge=False)
    classes = len(found.labels)
    per_class = sorted(found.labels.values())
    table.add_row("rows", f"{found.rows} in {found.file_bytes / 1e6:.1f} MB")
    table.add_row("splits", _counted(found.splits))
    table.add_row("sources", _counted(found.sources))
    table.add_row("classes", f"{classes}, {per_class[0]} to {per_class[-1]} rows each")
    table.add_row("hierarchy depth", ", ".join(f"{depth}: {rows} rows" for depth, rows in sorted(found.depths.items())))
    table.add_row("images", f"{found.image_bytes / found.images:.0f} bytes on average, {_counted(found.formats)}")
    table.add_row("sizes", f"{size_line(found.sizes)} (smallest / median / largest)")
    for prompt, rows in found.prompts.most_common(_MOST_LISTED):
        text = found.texts[prompt]
        table.add_row("prompt", f"{rows} x {'' if prompt == text else f'{prompt}: '}{_short(text)}")
    for name, facts in _datasets(found.metadata):
        table.add_row("from", f"{name}: {facts.get('title')} {facts.get('version')}; licence: {facts.get('licence')}")
    if "seed" in found.metadata:
        table.add_row("built by", f"speciarl {found.metadata.get('version')}, seed {found.metadata['seed']}")
    console.print(table)


def _datasets(metadata: dict[str, str]) -> list[tuple[str, dict[str, Any]]]:
    return list(json.loads(metadata.get("datasets", "{}")).items())


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 70 else line[:69] + "…"


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
