"""Report in a terminal: the paper's table, scope by scope."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from speciarl.evaluation.report import number_format as form
from speciarl.evaluation.report.scopes import LADDER, TITLES, Row, best_first, scopes
from speciarl.evaluation.report.summary import sentences
from speciarl.evaluation.results import Results


def show(results: Results, console: Console) -> None:
    """Print the summary, then for each average and data set a table with its runs, the best first."""
    for sentence in sentences(results):
        console.print(escape(sentence))
    judges = {cell.judge for cell in results.cells}
    for scope in scopes(results):
        table = Table("model / prompt", title=escape(scope.title), title_justify="left")
        if len(judges) > 1:
            table.add_column("judge")
        for column in (*(TITLES[metric] for metric in LADDER), "unscored", "failed"):
            table.add_column(column, justify="right", no_wrap=True)
        for row in best_first(scope.rows):
            names = [escape(row.label)] + ([escape(row.run.judge)] if len(judges) > 1 else [])
            table.add_row(*names, *(_measured(row, metric) for metric in LADDER), *_missing(row))
        console.print()
        console.print(table)


def _measured(row: Row, metric: str) -> str:
    if metric not in row.metrics:
        return form.NONE
    estimate = row.metrics[metric]
    return f"{form.number(estimate.value)} [dim]{escape(form.interval(estimate))}[/]"


def _missing(row: Row) -> tuple[str, str]:
    """Shares of unscored answers and failed questions, red where they are above the budget."""
    style = "bold red" if row.over_budget else "default"
    return f"[{style}]{form.share(row.unscored)}[/]", f"[{style}]{form.share(row.failed)}[/]"
