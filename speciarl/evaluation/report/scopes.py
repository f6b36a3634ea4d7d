"""Scopes of a report: the averages over groups of data sets, then each data set, with a row for each run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from speciarl.evaluation.config import prompt_name
from speciarl.evaluation.results import Average, Cell, Estimate, Results

LADDER = ("specificity", "correctness", "hm")
"""The metrics of the paper's table, in its order."""
TITLES = {"specificity": "specificity", "correctness": "correctness", "hm": "HM"}


@dataclass(frozen=True)
class Run:
    """A model with a prompt, as judged by one judge: a row of the paper's table."""

    model: str
    prompt: str
    judge: str

    @property
    def name(self) -> str:
        """``MODEL/PROMPT``, as `Difference` has it."""
        return f"{self.model}/{self.prompt}"


@dataclass(frozen=True)
class Row:
    """Numbers of a run in a scope."""

    run: Run
    label: str
    """What to call it: the model, and the prompt where there are several."""
    metrics: Mapping[str, Estimate]
    unscored: float
    """Largest share of unscored answers among its cells."""
    failed: float
    """Largest share of questions without a prediction among its cells."""
    over_budget: bool
    """Whether either is more than the configuration allows."""

    def value(self, metric: str) -> float | None:
        """A metric's value; None where it is undefined or was not computed."""
        return self.metrics[metric].value if metric in self.metrics else None


@dataclass(frozen=True)
class Scope:
    """A data set, or the average over a group of them."""

    name: str
    datasets: tuple[str, ...]
    average: bool
    rows: Sequence[Row]

    @property
    def title(self) -> str:
        """Its name, and of what it is the average."""
        return f"{self.name} (average of {', '.join(self.datasets)})" if self.average else self.name


def scopes(results: Results) -> list[Scope]:
    """All scopes: averages, that of the most data sets first, and data sets. No average that repeats another scope."""
    averaged: dict[tuple[str, ...], Scope] = {}
    for group in dict.fromkeys(average.group for average in results.averages):
        of_group = [average for average in results.averages if average.group == group]
        datasets = tuple(of_group[0].datasets)
        if len(datasets) > 1 and datasets not in averaged:
            averaged[datasets] = Scope(group, datasets, True, [_averaged(average, results) for average in of_group])
    found = sorted(averaged.values(), key=lambda scope: -len(scope.datasets))
    for dataset in dict.fromkeys(cell.dataset for cell in results.cells):
        rows = [_row(run_of(cell), cell.metrics, [cell], results) for cell in results.cells if cell.dataset == dataset]
        found.append(Scope(dataset, (dataset,), False, rows))
    return found


def run_of(measured: Cell | Average) -> Run:
    """The run that a cell or an average is of."""
    return Run(measured.model, prompt_name(measured.prompt), measured.judge)


def runs(results: Results) -> list[Run]:
    """All runs, in the order of the configuration."""
    return list(dict.fromkeys(map(run_of, results.cells)))


def label(run: Run, results: Results) -> str:
    """What to call a run: the model, and the prompt where there are several."""
    return run.name if len({cell.prompt for cell in results.cells}) > 1 else run.model


def best_first(rows: Sequence[Row]) -> list[Row]:
    """Rows by judge, and within one by HM, the best first; equal ones, and those without, in their order."""
    judges = list(dict.fromkeys(row.run.judge for row in rows))
    return sorted(
        rows, key=lambda row: (judges.index(row.run.judge), -(-1.0 if (hm := row.value("hm")) is None else hm))
    )


def unscored_share(cell: Cell) -> float:
    """Share of a cell's answers that have no verdict."""
    return sum(cell.unscored.values()) / cell.answers if cell.answers else 0.0


def failed_share(cell: Cell) -> float:
    """Share of a cell's questions that have no prediction."""
    return sum(cell.failed.values()) / cell.questions if cell.questions else 0.0


def missing(cell: Cell) -> list[str]:
    """Why answers of a cell are unscored and questions failed, each with its number."""
    unscored = [f"{reason} {count}" for reason, count in sorted(cell.unscored.items())]
    return unscored + [f"questions failed: {failure} {count}" for failure, count in sorted(cell.failed.items())]


def _averaged(average: Average, results: Results) -> Row:
    run = run_of(average)
    cells = [cell for cell in results.cells if run_of(cell) == run and cell.dataset in average.datasets]
    return _row(run, average.metrics, cells, results)


def _row(run: Run, metrics: Mapping[str, Estimate], cells: Sequence[Cell], results: Results) -> Row:
    unscored = max(map(unscored_share, cells), default=0.0)
    failed = max(map(failed_share, cells), default=0.0)
    over = unscored > results.settings["max_unscored"] or failed > results.settings["max_failed"]
    return Row(run, label(run, results), metrics, unscored, failed, over)
