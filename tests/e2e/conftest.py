"""What all end-to-end tests share, made once by whichever of pytest's processes needs it first."""

from pathlib import Path

import pytest
from filelock import FileLock
from grpo_sweep import GrpoSweep
from laptop_run import build_data

LOCK_DEADLINE_S = 1800


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A directory for all processes of this session."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if hasattr(request.config, "workerinput") else own  # pytest-xdist gives each a subdirectory


@pytest.fixture(scope="session")
def laptop_data(shared: Path) -> Path:
    """The emoji data set."""
    with FileLock(shared / "emoji.lock", timeout=LOCK_DEADLINE_S):
        return build_data(shared / "emoji")


@pytest.fixture(scope="session")
def grpo_sweep(shared: Path, laptop_data: Path) -> GrpoSweep:
    """GRPO with the static and with the dynamic reward."""
    with FileLock(shared / "sweep.lock", timeout=LOCK_DEADLINE_S):
        return GrpoSweep.trained(shared / "sweep", laptop_data)
