"""A test set of a few pictures, and settings that evaluate on it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scripted_engine import row, save

from speciarl.evaluation.config import EvaluationConfig, parse


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    """A test set of 12 rows."""
    return save(tmp_path / "data" / "test.parquet", [row(number) for number in range(12)])


@pytest.fixture
def configured(tmp_path: Path, birds: Path) -> Callable[..., EvaluationConfig]:
    """Function that makes a configuration; keywords replace its keys."""

    def make(**changed: Any) -> EvaluationConfig:
        return parse(
            {
                "out": tmp_path / "out",
                "models": {"m": {"path": "anything", "endpoint": "http://localhost:1/v1"}},
                "datasets": {"birds": {"file": str(birds)}},
                "judges": {"j": {"use": "laptop"}},
                **changed,
            }
        )

    return make
