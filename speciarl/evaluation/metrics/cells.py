"""Cells: all numbers of one model on one data set with one prompt, by one judge."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from speciarl.evaluation.config import EvaluationConfig, prompt_name
from speciarl.evaluation.matrix import Asked
from speciarl.evaluation.metrics import best_of, bootstrap, scores
from speciarl.evaluation.metrics.answers import Answers
from speciarl.evaluation.metrics.bootstrap import Spread
from speciarl.evaluation.metrics.metric import Bounds, Family, Floats, Metric, number
from speciarl.evaluation.results import Cell, Estimate


@dataclass(frozen=True)
class Measured:
    """A cell with what comparing and averaging it takes."""

    cell: Cell
    draws: Mapping[str, Floats]
    """Values of the bootstrap's draws of the main metrics, shape (draws,); NaN where a draw has none. On one data set
    those of all cells are paired draw by draw."""
    spreads: Mapping[str, Spread | None]
    """By metric; None where there are less than two classes, or no value."""
    spans: Mapping[str, Bounds]
    """By metric."""
    questions: pa.ChunkedArray
    """`sample_id` of each question."""
    classes: NDArray[np.int64]
    """Class of each question, shape (questions,): a place in `class_names`."""
    class_names: list[tuple[str, ...]]


def measure(
    config: EvaluationConfig, asked: Asked, judge: str, answers: Answers, others: Iterable[Family] = ()
) -> Measured:
    """All metrics of a cell; `others` are families of its responses, which no judge takes part in."""
    responses, outcomes = answers.responses, answers.outcomes
    questions, n = responses.shape
    classes, settings = len(responses.class_names), config.metrics
    families = [scores.family(settings, outcomes), *others]
    curve: Iterable[Family] = ()
    if n > 1:
        families.append(best_of.plain_family(settings, outcomes))
        curve = best_of.families(settings, outcomes)
    # One after another: the features of all k together would fill memory.
    summed = [
        replace(family, features=bootstrap.class_sums(family.features, responses.classes, classes))
        for family in itertools.chain(families, curve)
    ]
    drawn = bootstrap.draw_sums(np.concatenate([one.features for one in summed], 1), settings.bootstrap, asked.dataset)
    parts = np.split(drawn, np.cumsum([one.features.shape[1] for one in summed])[:-1], axis=1)
    metrics: dict[str, Estimate] = {}
    curves: dict[str, list[Estimate]] = {}
    kept: dict[str, Floats] = {}
    spreads: dict[str, Spread | None] = {}
    spans: dict[str, Bounds] = {}
    for place, (family, part) in enumerate(zip(summed, parts, strict=True)):
        total = family.features.sum(0)
        extremes = total if family.extremes is None else family.extremes
        for metric in family.metrics:
            draws = metric.statistic(part)
            spread = Spread.of(draws, classes)
            estimate = _estimate(metric, total, extremes, spread, settings.bootstrap.level)
            if place >= len(families):
                curves.setdefault(metric.name, []).append(estimate)
                continue
            metrics[metric.name], spreads[metric.name], spans[metric.name] = estimate, spread, metric.span
            if metric.name in scores.MAIN:
                kept[metric.name] = draws
    cell = Cell(
        model=asked.model,
        dataset=asked.dataset,
        prompt=prompt_name(asked.prompt),
        judge=judge,
        group=config.datasets[asked.dataset].group,
        questions=questions,
        answers=outcomes.size,
        classes=classes,
        metrics=metrics,
        best_of=curves,
        unscored=answers.unscored,
        failed=responses.failed,
    )
    return Measured(cell, kept, spreads, spans, responses.questions, responses.classes, responses.class_names)


def _estimate(metric: Metric, total: Floats, extremes: Floats, spread: Spread | None, level: float) -> Estimate:
    lower, upper = metric.bounds(extremes)
    value = float(metric.statistic(total))
    if np.isnan(value):
        return Estimate(None, lower_bound=lower, upper_bound=upper)
    low, high = (None, None) if spread is None else map(number, spread.interval(value, level, metric.span))
    return Estimate(number(value), low, high, lower, upper)
