"""Differences of two cells that answered the same questions: paired, with one correction for all of a report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from speciarl.errors import DataError
from speciarl.evaluation.metrics import scores
from speciarl.evaluation.metrics.bootstrap import Spread
from speciarl.evaluation.metrics.cells import Measured
from speciarl.evaluation.metrics.metric import number
from speciarl.evaluation.results import Difference, Estimate


def differences(pairs: Iterable[tuple[Measured, Measured]], level: float) -> list[Difference]:
    """Second minus first of each pair, in the main metrics, with p values corrected for all of them together.

    Left out is a metric that one of the two has no value of, and data of one class, which show nothing of others.
    Raises DataError when two answered different questions, or by other labels.
    """
    found = [
        difference
        for first, second in pairs
        for name in scores.MAIN
        if (difference := _difference(name, first, second, level)) is not None
    ]
    corrected = holm([difference.p for difference in found])
    return [replace(difference, p_holm=p) for difference, p in zip(found, corrected, strict=True)]


def holm(p_values: Sequence[float]) -> list[float]:
    """p values corrected for their number by Holm's method: the smallest times m, the next times m - 1, …; rising."""
    corrected = [1.0] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = highest
    return corrected


def _difference(name: str, first: Measured, second: Measured, level: float) -> Difference | None:
    _refuse_other_questions(first, second)
    one, other = first.cell.metrics[name], second.cell.metrics[name]
    if one.value is None or other.value is None:
        return None
    value = other.value - one.value
    spread = Spread.of(second.draws[name] - first.draws[name], first.cell.classes)
    if spread is None:
        return None
    p = round(spread.p(value), 10)
    alike = spread.alike and p < 1  # every class differs by the same: no interval follows from that
    low, high = (None, None) if alike else map(number, spread.interval(value, level))
    bounds = (_minus(other.lower_bound, one.upper_bound), _minus(other.upper_bound, one.lower_bound))
    return Difference(
        first=_label(first),
        second=_label(second),
        dataset=first.cell.dataset,
        judge=first.cell.judge,
        metric=name,
        estimate=Estimate(number(value), low, high, *bounds),
        p=p,
        p_holm=1.0,
        detectable=1.0 if alike else min(1.0, round(spread.detectable(level), 10)),
    )


def _refuse_other_questions(first: Measured, second: Measured) -> None:
    same = first.questions.equals(second.questions) and first.class_names == second.class_names
    if first.cell.dataset != second.cell.dataset or not same or not np.array_equal(first.classes, second.classes):
        raise DataError(
            f"{_label(first)} and {_label(second)} did not answer the same questions of {first.cell.dataset!r} with "
            "the same labels; run the stage `predict` again"
        )


def _label(measured: Measured) -> str:
    return f"{measured.cell.model}/{measured.cell.prompt}"


def _minus(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else number(one - other)
