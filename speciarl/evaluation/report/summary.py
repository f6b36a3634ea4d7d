"""Summary of an evaluation in two sentences: who is best, and by how much against the first model."""

from __future__ import annotations

from speciarl.evaluation.report import number_format as form
from speciarl.evaluation.report.scopes import Row, Scope, best_first, scopes
from speciarl.evaluation.results import Difference, Results

_FEW = 2
"""So many data sets are told one by one."""


def sentences(results: Results) -> tuple[str, str]:
    """Two sentences on the first scope by the first judge."""
    scope = scopes(results)[0]
    judge = scope.rows[0].run.judge
    rows = [row for row in scope.rows if row.run.judge == judge]
    best = best_first(rows)[0]
    return _best(best, scope, several=len(rows) > 1), _against_first(rows, best, scope, results)


def _best(row: Row, scope: Scope, several: bool) -> str:
    hm = row.metrics.get("hm")
    if hm is None or hm.value is None:
        return f"On {scope.title}, no model has a defined HM."
    verb = "is best, with" if several else "reaches"
    return (
        f"On {scope.title}, {row.label} {verb} HM {form.number(hm.value)} {form.interval(hm)} "
        f"(specificity {form.number(row.value('specificity'))}, correctness {form.number(row.value('correctness'))})."
    ).replace("  ", " ")


def _against_first(rows: list[Row], best: Row, scope: Scope, results: Results) -> str:
    first = rows[0]
    if len(rows) == 1:
        return _unknown(first)
    if best is first:
        second = best_first(rows)[1]
        told = f"It is the first; the next, {second.label}, differs by {_gain(first, second, scope, results)}."
    else:
        told = f"Against the first, {first.label}, that is {_gain(first, best, scope, results)}."
    worst = max(rows, key=lambda row: row.unscored)
    return f"{told} {_unknown(worst, worst.label)}" if worst.unscored else told


def _gain(first: Row, other: Row, scope: Scope, results: Results) -> str:
    """The change in HM with its interval: of the scope where there is one, else data set by data set."""
    known = {
        difference.dataset: difference
        for difference in results.differences
        if (difference.first, difference.second) == (first.run.name, other.run.name)
        and difference.judge == first.run.judge
        and difference.metric == "hm"
    }
    if scope.name in known:
        return _paired(known[scope.name])
    if (before := first.value("hm")) is None or (after := other.value("hm")) is None:
        return "not known"
    paired = [known[name] for name in scope.datasets if name in known]
    return form.change(after - before) + (
        _by_dataset(paired, after >= before) if paired else " (not paired, so without an interval)"
    )


def _by_dataset(paired: list[Difference], better: bool) -> str:
    if len(paired) <= _FEW:
        return ": " + ", ".join(f"{one.dataset} {_paired(one)}" for one in paired)
    ranked = sorted(paired, key=lambda one: one.estimate.value or 0.0)
    side = "better" if better else "worse"
    sure = sum(one.sure and ((one.estimate.value or 0.0) > 0) == better for one in paired)
    ends = " to ".join(f"{_paired(one)} on {one.dataset}" for one in (ranked[0], ranked[-1]))
    return f", from {ends}; surely {side} on {sure} of {len(paired)} (p < .05 after Holm)"


def _paired(difference: Difference) -> str:
    estimate = difference.estimate
    return f"{form.change(estimate.value)} {form.interval(estimate, of_change=True)}".rstrip()


def _unknown(row: Row, name: str = "it") -> str:
    hm = row.metrics.get("hm")
    if row.unscored == 0 or hm is None:
        return "Every answer was scored."
    return f"Of {name}, up to {form.share(row.unscored)} of a cell is unscored; its HM lies within {form.bounds(hm)}."
