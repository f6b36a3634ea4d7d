"""Budget of what may be unscored or fail before an evaluation counts as unfinished."""

from __future__ import annotations

from collections.abc import Mapping

from speciarl.evaluation.config import EvaluationConfig
from speciarl.evaluation.results import Cell, Results


def over_budget(results: Results, config: EvaluationConfig) -> list[str]:
    """One line for each cell whose share of unscored answers or of failed questions is above its limit."""
    lines = []
    for cell in results.cells:
        lines += _line(cell, "answers unscored", cell.unscored, cell.answers, "max_unscored", config.max_unscored)
        lines += _line(cell, "questions failed", cell.failed, cell.questions, "max_failed", config.max_failed)
    return lines


def _line(cell: Cell, what: str, counts: Mapping[str, int], total: int, key: str, allowed: float) -> list[str]:
    lost = sum(counts.values())
    if lost <= allowed * total:
        return []
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(counts.items()))
    return [
        f"{cell.model} / {cell.dataset} / {cell.prompt} by {cell.judge}: {lost} of {total} {what} ({reasons}), more "
        f"than {key} {allowed:g} allows; run `speciarl evaluate` again to try them once more, or raise {key}"
    ]
