"""Report of a calibration: tables in the terminal, Markdown and JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from speciarl.category import LABELS, Category
from speciarl.evaluation.calibrate.calibration import Calibration
from speciarl.evaluation.results import Estimate

VERSION = 1


class Section(NamedTuple):
    """One table of the report."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def to_json(calibration: Calibration) -> str:
    """All numbers; the same calibration gives the same text."""
    content = {"version": VERSION, "categories": LABELS, **asdict(calibration)}
    return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def to_markdown(calibration: Calibration) -> str:
    """The report as Markdown."""
    parts = [f"# Calibration of judge {calibration.judge}", _summary(calibration)]
    for section in sections(calibration, _with_interval):
        lines = [f"## {section.title}", "", _line(section.header), _line(["---"] * len(section.header))]
        parts.append("\n".join([*lines, *map(_line, section.rows)]))
    return "\n\n".join(parts) + "\n"


def show(calibration: Calibration, console: Console) -> None:
    """Print the report."""
    console.print(Text(_summary(calibration)))
    for section in sections(calibration, _per_cent):
        table = Table(title=section.title, title_justify="left")
        for number, name in enumerate(section.header):
            table.add_column(name, justify="right" if number else "left")
        for row in section.rows:
            table.add_row(*map(Text, row))  # not str, in which rich would take brackets for markup
        console.print(table)


def sections(calibration: Calibration, cell: Callable[[Estimate], str]) -> Iterator[Section]:
    """The tables of the report, those without a row left out; `cell` writes one of the confusion matrix."""
    found = calibration
    yield Section(
        "Confusion: per cent of each gold category by verdict",
        ("gold", "pairs", *LABELS),
        [
            (category.label, str(sum(found.counts[category])), *map(cell, found.confusion[category]))
            for category in Category
        ],
    )
    yield Section(
        "By category",
        ("category", "precision", "recall"),
        [
            (category.label, shown(found.precision[key]), shown(found.recall[key]))
            for category in Category
            if (key := category.name.lower())
        ],
    )
    yield Section(
        "By kind of pair",
        ("kind", "pairs", "right"),
        [(kind, str(found.kinds[kind]), shown(right)) for kind, right in found.accuracy_by_kind.items()],
    )
    if found.margins:
        rows = [(f"{one.least:.2f} to {one.most:.2f}", str(one.pairs), shown(one.accuracy)) for one in found.margins]
        yield Section("By margin, in nats", ("margin", "pairs", "right"), rows)
    if found.rankings:
        rows = [
            (f"{one.first}, {one.second}", str(one.models), "-" if one.tau is None else f"{one.tau:.3f}")
            for one in found.rankings
        ]
        yield Section("Order of models by HM, between judges", ("judges", "models", "Kendall's tau"), rows)
    if found.corrected:
        rows = [
            (
                f"{cell.model} / {cell.dataset} / {cell.prompt}",
                shown(cell.hm.reported),
                cell.hm.why_not or shown(cell.hm.corrected),
            )
            for cell in found.corrected
        ]
        yield Section("HM, corrected for what the judge confuses", ("run", "as judged", "corrected"), rows)


def shown(estimate: Estimate) -> str:
    """A number with its interval, e.g. ``.912 [.880, .938]``."""
    if estimate.value is None:
        return "-"
    interval = "" if estimate.low is None or estimate.high is None else f" [{estimate.low:.3f}, {estimate.high:.3f}]"
    return f"{estimate.value:.3f}{interval}"


def _per_cent(estimate: Estimate) -> str:
    """A share in per cent, e.g. ``99.5``; a dot for 0."""
    if not estimate.value:
        return "-" if estimate.value is None else "."
    return f"{100 * estimate.value:.3g}"


def _with_interval(estimate: Estimate) -> str:
    """The same with its interval, e.g. ``99.5 [97, 100]``."""
    if not estimate.value or estimate.low is None or estimate.high is None:
        return _per_cent(estimate)
    return f"{_per_cent(estimate)} [{100 * estimate.low:.0f}, {100 * estimate.high:.0f}]"


def _summary(calibration: Calibration) -> str:
    found = calibration
    error = "none" if found.calibration_error is None else f"{found.calibration_error:.3f}"
    unscored = ", ".join(f"{reason} {count}" for reason, count in found.unscored.items()) or "none"
    return (
        f"Judge {found.judge} on {sum(found.kinds.values())} gold pairs of {found.truths} truths (seed {found.seed}): "
        f"{shown(found.accuracy)} right; kappa {shown(found.kappa)}, quadratically weighted "
        f"{shown(found.kappa_quadratic)}; expected calibration error {error}; unscored: {unscored}. "
        f"Of {found.repeats} pairs asked for again, {shown(found.flips_repeated)} changed when repeated alone, "
        f"{shown(found.flips_under_load)} under load."
    )


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
