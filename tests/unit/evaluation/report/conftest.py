"""A small made-up evaluation that all tests of reports read."""

from pathlib import Path

import evaluation_demo
import pytest

from speciarl.evaluation.config import EvaluationConfig
from speciarl.evaluation.results import Results

HOSTILE = "</script><script>document.title='taken'</script><img src=x onerror=alert(1)>"
ANSWERS = {
    ("flowers", 0): HOSTILE, ("flowers", 1): "a\u2028b\u2029c", ("flowers", 2): "x" * 200_000,
    ("flowers", 3): "=cmd|' /C calc'!A0", ("flowers", 4): "\u202eesrever\u2066",
    ("flowers", 5): "nul \x00 bell \x07 esc \x1b del \x7f", ("flowers", 6): "<!-- & ]]> -->",
}  # fmt: skip
"""Answers that would do harm in a page that took them for more than text."""


@pytest.fixture(scope="session")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> tuple[EvaluationConfig, Results]:
    """Four models on four data sets by two judges, three answers to each of 40 questions."""
    return evaluation_demo.make(
        tmp_path_factory.mktemp("evaluation"), samples=40, judges=("llama", "qwen"), n=3, answers=ANSWERS
    )


@pytest.fixture(scope="session")
def out(evaluation: tuple[EvaluationConfig, Results]) -> Path:
    return evaluation[0].out


@pytest.fixture(scope="session")
def results(evaluation: tuple[EvaluationConfig, Results]) -> Results:
    return evaluation[1]
