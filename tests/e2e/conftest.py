"""Data that all end-to-end tests share."""

from pathlib import Path

import pytest
from laptop_run import build_data


@pytest.fixture(scope="session")
def laptop_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The emoji data set, built once."""
    return build_data(tmp_path_factory.mktemp("data") / "emoji")
