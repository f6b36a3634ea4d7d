"""Verify stage: predictions to verdicts, each distinct pair judged once, failures typed and asked again on resume."""

from speciarl.evaluation.verify.stage import Verified, judge_cell, verify
from speciarl.evaluation.verify.standing import Standing, standing

__all__ = ["Standing", "Verified", "judge_cell", "standing", "verify"]
