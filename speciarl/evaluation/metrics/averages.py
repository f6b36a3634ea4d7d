"""Averages over data sets, each of which counts alike."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from speciarl.evaluation.metrics.bootstrap import Spread
from speciarl.evaluation.metrics.cells import Measured
from speciarl.evaluation.metrics.metric import number
from speciarl.evaluation.results import Average, Estimate

ALL = "all data sets"
"""Group of all data sets together."""


def groups(datasets: Mapping[str, str]) -> dict[str, list[str]]:
    """Data sets of each group, from the group of each; all of them together where there is more than one."""
    found: dict[str, list[str]] = {}
    for dataset, group in datasets.items():
        if group:
            found.setdefault(group, []).append(dataset)
    return found | ({ALL: list(datasets)} if len(datasets) > 1 else {})


def average(group: str, cells: Sequence[Measured], level: float) -> Average:
    """The average of the cells of one model with one prompt by one judge; data sets are independent of each other.

    A metric without a value on one of the data sets has none here.
    """
    first = cells[0]
    common = [name for name in first.cell.metrics if all(name in measured.cell.metrics for measured in cells)]
    return Average(
        model=first.cell.model,
        prompt=first.cell.prompt,
        judge=first.cell.judge,
        group=group,
        datasets=[measured.cell.dataset for measured in cells],
        metrics={name: _estimate(name, cells, level) for name in common},
    )


def _estimate(name: str, cells: Sequence[Measured], level: float) -> Estimate:
    estimates = [measured.cell.metrics[name] for measured in cells]
    lower = mean([estimate.lower_bound for estimate in estimates])
    upper = mean([estimate.upper_bound for estimate in estimates])
    value = mean([estimate.value for estimate in estimates])
    spreads = [spread for measured in cells if (spread := measured.spreads[name]) is not None]
    if value is None or len(spreads) < len(cells):
        return Estimate(value, lower_bound=lower, upper_bound=upper)
    span = cells[0].spans[name]
    low, high = Spread.of_mean(spreads).interval(value, level, span)
    return Estimate(value, number(low), number(high), lower, upper)


def mean(values: Sequence[float | None]) -> float | None:
    """Their mean; None where one of them is."""
    known = [value for value in values if value is not None]
    return number(math.fsum(known) / len(known)) if len(known) == len(values) else None
