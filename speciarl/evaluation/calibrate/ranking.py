"""Ranking stability: whether judges order models alike."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from speciarl.evaluation.metrics.metric import number


@dataclass(frozen=True)
class RankAgreement:
    """Two judges and how alike they order models."""

    first: str
    second: str
    models: int
    tau: float | None
    """Kendall's tau-b, in [-1, 1]: 1 for the same order. None for less than two models, or where all are tied."""


def ranking_stability(scores: Mapping[str, Mapping[str, float]]) -> list[RankAgreement]:
    """Agreement of every two judges, from the score of each model by each judge; models that both have count."""
    from scipy.stats import kendalltau

    found = []
    for first, second in itertools.combinations(scores, 2):
        models = [model for model in scores[first] if model in scores[second]]
        tau = np.nan
        if len(models) > 1:
            ours, theirs = ([scores[judge][model] for model in models] for judge in (first, second))
            tau = float(kendalltau(ours, theirs).statistic)
        found.append(RankAgreement(first, second, len(models), number(tau)))
    return found
