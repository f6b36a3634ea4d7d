"""Comparison of two evaluations: paired differences of the cells that they share, or a refusal that names the field."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from speciarl.evaluation import tables
from speciarl.evaluation.config import EvaluationConfig, parse, prompt_name
from speciarl.evaluation.matrix import RESULTS, Asked
from speciarl.evaluation.report import comparable
from speciarl.evaluation.report import number_format as form
from speciarl.evaluation.report.comparable import NotComparable
from speciarl.evaluation.report.outcomes import starts
from speciarl.evaluation.report.scopes import TITLES
from speciarl.evaluation.results import Difference, load


@dataclass(frozen=True)
class Side:
    """One of two cells that are compared."""

    model: str
    """What to call its model: its name, after the folder's where both sides have the same."""
    asked: Asked
    judge: str
    predictions: Path
    verdicts: Path

    @property
    def label(self) -> str:
        """``MODEL/PROMPT``, as `Difference` has it."""
        return f"{self.model}/{self.asked.prompt}"


class PairedStatistics(Protocol):
    """Paired differences of pairs of cells on the same questions, each second minus first."""

    def __call__(self, config: EvaluationConfig, pairs: Sequence[tuple[Side, Side]]) -> list[Difference]:
        """The differences of all pairs, so that one correction (Holm) is over all of them."""
        ...


def compare(first: Path, second: Path, paired: PairedStatistics) -> list[Difference]:
    """Differences between two evaluations, given by their output folders.

    Runs, prompts and judges are paired by name, or where each evaluation has one. Raises NotComparable (one line) when
    prompt text, data, pixels, judge or definitions of a pair differ, and DataError when a file cannot be read.
    """
    one, other = _config(first), _config(second)
    first_definitions, second_definitions = (comparable.of_settings(config.model_dump()) for config in (one, other))
    comparable.require(first_definitions, second_definitions, f"{first} and {second}")
    pairs = list(_pairs(one, first, other, second))
    for pair in pairs:
        _check(*pair)
    return paired(one, pairs)


def show(differences: Sequence[Difference], console: Console) -> None:
    """Print the differences; in bold those that are sure after correction and whatever unscored answers are."""
    table = Table("data set", "first", "second", "metric", title="second minus first, paired", box=SIMPLE_HEAD)
    for column in ("difference", "within", "p", "p (Holm)", "detectable"):
        table.add_column(column, justify="right", no_wrap=True)
    for one in differences:
        change = f"{form.change(one.estimate.value)} {form.interval(one.estimate, of_change=True)}".rstrip()
        names = map(escape, (one.dataset, one.first, one.second, TITLES.get(one.metric, one.metric)))
        numbers = (
            form.bounds(one.estimate),
            form.p_value(one.p),
            form.p_value(one.p_holm),
            form.number(one.detectable),
        )
        table.add_row(*names, escape(change), *numbers, style="bold" if one.sure else None)
    console.print(table)


def _config(folder: Path) -> EvaluationConfig:
    return parse(dict(load(folder / RESULTS).settings))


def _pairs(one: EvaluationConfig, first: Path, other: EvaluationConfig, second: Path) -> Iterator[tuple[Side, Side]]:
    models = _matched(list(one.models), list(other.models), "models")
    prompts = _matched(list(map(prompt_name, one.prompts)), list(map(prompt_name, other.prompts)), "prompts")
    judges = _matched(list(one.judges), list(other.judges), "judges")
    datasets = [name for name in one.datasets if name in other.datasets]
    if not datasets:
        raise NotComparable(f"{first} and {second} have no data set of the same name; evaluate both on one")
    folders = _told_apart(first.resolve(), second.resolve())
    for judge, model, prompt in ((j, m, p) for j in judges for m in models for p in prompts):
        for dataset in datasets:
            names = model
            if (model[0], prompt[0]) == (model[1], prompt[1]):
                names = f"{folders[0]}: {model[0]}", f"{folders[1]}: {model[1]}"
            yield (
                _side(names[0], Asked(model[0], dataset, prompt[0]), judge[0], first),
                _side(names[1], Asked(model[1], dataset, prompt[1]), judge[1], second),
            )


def _told_apart(first: Path, second: Path) -> tuple[str, str]:
    """Names of two folders; where these are the same, with those of the folders above that are not."""
    if first.name != second.name or first == second:
        return first.name, second.name
    common = os.path.commonpath((first, second))
    return str(first.relative_to(common)), str(second.relative_to(common))


def _side(model: str, asked: Asked, judge: str, out: Path) -> Side:
    return Side(model, asked, judge, asked.predictions(out), asked.verdicts(out, judge))


def _matched(one: list[str], other: list[str], what: str) -> list[tuple[str, str]]:
    """Pairs of names: equal ones; where there are none, all if at least one side has a single name."""
    if same := [(name, name) for name in one if name in other]:
        return same
    if len(one) > 1 and len(other) > 1:
        raise NotComparable(
            f"the {what} have no name in common ({', '.join(one)}; {', '.join(other)}); name them alike"
        )
    return [(name, second) for name in one for second in other]


def _check(first: Side, second: Side) -> None:
    where = f"{first.asked.dataset} ({first.label}, {second.label})"
    for facts, name in ((comparable.of_predictions, "predictions"), (comparable.of_verdicts, "verdicts")):
        comparable.require(facts(getattr(first, name)), facts(getattr(second, name)), where)
    one, other = _questions(first), _questions(second)
    if not one["sample_id"].equals(other["sample_id"]):
        raise NotComparable(f"{where}: not comparable, the samples differ; evaluate both on the same rows")
    if not one["question"].equals(other["question"]):
        rows = zip(one.to_pylist(), other.to_pylist(), strict=True)
        sample = next(left["sample_id"] for left, right in rows if left != right)
        raise NotComparable(f"{where}: not comparable, sample {sample} has another prompt or image; use the same data")


def _questions(side: Side) -> Any:
    table = tables.read(side.predictions, tables.PREDICTIONS, ["sample_id", "index", "question"])
    return table.take(starts(table)).select(["sample_id", "question"])
