"""Report in a terminal: the paper's table, scope by scope."""

from __future__ import annotations

import itertools

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from speciarl.evaluation.report import number_format as form
from speciarl.evaluation.report.scopes import LADDER, TITLES, Row, best_first, scopes
from speciarl.evaluation.report.summary import sentences
from speciarl.evaluation.results import Results

_WIDE = 110
"""Columns from which on an interval stands beside its number, and not below."""


def show(results: Results, console: Console) -> None:
    """Print the summary, then for each average and data set a table with its runs, the best first."""
    for sentence in sentences(results):
        console.print(escape(sentence))
    judges = list(dict.fromkeys(cell.judge for cell in results.cells))
    between = " " if console.width >= _WIDE else "\n"
    for scope, judge in itertools.product(scopes(results), judges):
        by = f", judged by {judge}" if len(judges) > 1 else ""
        table = Table(title=escape(scope.title + by), title_justify="left", box=SIMPLE_HEAD)
        table.add_column("model / prompt", overflow="fold")
        for column in (*(TITLES[metric] for metric in LADDER), "unscored", "failed"):
            table.add_column(column, justify="right", no_wrap=True)
        for row in best_first(scope.rows):
            if row.run.judge == judge:
                numbers = (_measured(row, metric, between) for metric in LADDER)
                table.add_row(escape(row.label), *numbers, *_missing(row))
        console.print(table)


def _measured(row: Row, metric: str, between: str) -> str:
    if metric not in row.metrics:
        return form.NONE
    estimate = row.metrics[metric]
    return f"{form.number(estimate.value)}{between}[dim]{escape(form.interval(estimate))}[/]"


def _missing(row: Row) -> tuple[str, str]:
    """Shares of unscored answers and failed questions, red where they are above the budget."""
    style = "bold red" if row.over_budget else "default"
    return f"[{style}]{form.share(row.unscored)}[/]", f"[{style}]{form.share(row.failed)}[/]"
