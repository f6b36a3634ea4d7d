"""Metrics: from tables of predictions and verdicts to results; every number with its interval and its bounds."""

from speciarl.evaluation.metrics.budget import over_budget
from speciarl.evaluation.metrics.computation import compute, definitions

__all__ = ["compute", "definitions", "over_budget"]
