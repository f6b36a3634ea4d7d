"""Paired statistics of a comparison, by the metrics of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from speciarl.evaluation.config import EvaluationConfig
from speciarl.evaluation.metrics import answers, responses
from speciarl.evaluation.metrics.cells import Measured, measure
from speciarl.evaluation.metrics.differences import differences
from speciarl.evaluation.report.compare import Side
from speciarl.evaluation.results import Difference


def paired(config: EvaluationConfig, pairs: Sequence[tuple[Side, Side]]) -> list[Difference]:
    """Differences of all pairs in the main metrics, second minus first, with Holm's correction over all of them."""
    measured: dict[Side, Measured] = {}
    for side in dict.fromkeys(side for pair in pairs for side in pair):
        written = responses.load(side.predictions)
        judged = answers.load(side.verdicts, side.predictions, written, config.metrics.too_long_chars)
        of = measure(config, side.asked, side.judge, judged)
        measured[side] = replace(of, cell=replace(of.cell, model=side.model))
    both = [(measured[first], measured[second]) for first, second in pairs]
    return differences(both, config.metrics.bootstrap.level)
