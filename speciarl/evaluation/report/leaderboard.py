"""Leaderboard over evaluations: every run of every results.json below some folders, the best first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from speciarl.errors import DataError
from speciarl.evaluation.matrix import RESULTS, Asked
from speciarl.evaluation.report import comparable
from speciarl.evaluation.report import number_format as form
from speciarl.evaluation.report.scopes import LADDER, TITLES, Row, Scope, scopes
from speciarl.evaluation.results import Results, load


@dataclass(frozen=True)
class Entry:
    """A run of an evaluation, on its broadest scope."""

    folder: Path
    scope: str
    row: Row
    basis: Mapping[str, Any]
    """What a comparison takes for granted: data, pixels, prompt text, judge and definitions."""
    differs: tuple[str, ...] = ()
    """In what it is not comparable with the first."""


def entries(folders: Iterable[Path]) -> list[Entry]:
    """All runs, the best HM first, each told in what it is not comparable with the first.

    Raises DataError when there is no results.json below the folders or one cannot be read.
    """
    files = sorted({file for folder in folders for file in folder.rglob(RESULTS)})
    if not files:
        raise DataError(f"no {RESULTS} below {', '.join(map(str, folders))}; give folders of `speciarl evaluate`")
    found = [entry for file in files for entry in _entries(file)]
    found.sort(key=lambda entry: -(hm if (hm := entry.row.value("hm")) is not None else -1.0))
    return [replace(one, differs=_differing(found[0], one)) for one in found]


def show(found: Iterable[Entry], console: Console) -> None:
    """Print the leaderboard; runs that are not comparable with the first dimmed, with the reason."""
    table = Table("", box=SIMPLE_HEAD)
    for column in ("run", "folder", "on", "judge"):
        table.add_column(column, overflow="fold")
    for metric in LADDER:
        table.add_column(TITLES[metric], justify="right")
    table.add_column("not comparable in", overflow="fold")
    for place, one in enumerate(found, start=1):
        numbers = [form.number(one.row.value(metric)) for metric in LADDER]
        if "hm" in one.row.metrics:
            numbers[-1] += f"\n{escape(form.interval(one.row.metrics['hm']))}"
        names = map(escape, (one.row.run.name, str(one.folder), one.scope, one.row.run.judge))
        style = "dim" if one.differs else None
        table.add_row(str(place), *names, *numbers, escape(", ".join(one.differs)), style=style)
    console.print(table)


def _differing(first: Entry, one: Entry) -> tuple[str, ...]:
    """In what two are not comparable. Prompts may differ, but not under one name."""
    names = comparable.differing(first.basis, one.basis)
    same_prompt = first.row.run.prompt == one.row.run.prompt
    return tuple(name for name in names if same_prompt or not name.startswith("prompt text"))


def _entries(file: Path) -> Iterable[Entry]:
    results = load(file)
    scope = scopes(results)[0]
    for row in scope.rows:
        yield Entry(file.parent, scope.name, row, _basis(results, scope, row, file.parent))


def _basis(results: Results, scope: Scope, row: Row, out: Path) -> dict[str, Any]:
    """Facts of the tables where they lie beside the results; else the settings, which know names instead of content."""
    basis: dict[str, Any] = comparable.of_settings(results.settings)
    for dataset in scope.datasets:
        asked = Asked(row.run.model, dataset, row.run.prompt)
        if asked.predictions(out).exists() and asked.verdicts(out, row.run.judge).exists():
            answered = comparable.of_predictions(asked.predictions(out))
            basis |= {f"{name} of {dataset}": value for name, value in answered.items()}
            basis |= comparable.of_verdicts(asked.verdicts(out, row.run.judge))
        else:
            basis[f"data of {dataset}"] = results.settings["datasets"][dataset]
            basis["judge"] = results.settings["judges"][row.run.judge]
    return basis
