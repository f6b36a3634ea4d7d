"""The import rules of docs/architecture.md hold: none upwards, no circle, and light rooms stay light."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIGHT = [
    "speciarl.config", "speciarl.reward", "speciarl.verifier_server.service.app", "speciarl.cli", "speciarl.laptop.cli",
    "data_prep.cli", "speciarl.evaluation.cli", "speciarl.evaluation.results", "speciarl.evaluation.metrics",
    "speciarl.evaluation.report", "speciarl.evaluation.replay.replay",
]  # fmt: skip
HEAVY = ("torch", "verl", "vllm", "ray", "transformers", "hydra")


def lint(config: Path) -> subprocess.CompletedProcess[str]:
    """Import Linter in a process of its own, as it changes the settings of `logging`."""
    program = Path(sys.executable).with_name("lint-imports")
    return subprocess.run(
        [program, "--config", config, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=300
    )


def test_no_import_breaks_the_rules() -> None:
    done = lint(ROOT / "pyproject.toml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_import_upwards_would_be_seen(tmp_path: Path) -> None:
    config = tmp_path / "upside_down.toml"
    config.write_text(
        "[tool.importlinter]\nroot_packages = ['speciarl']\n[[tool.importlinter.contracts]]\nname = 'upside down'\n"
        "type = 'layers'\ncontainers = ['speciarl']\nlayers = ['category', 'verdict']\n"
    )
    done = lint(config)
    assert done.returncode == 1
    assert "speciarl.verdict -> speciarl.category" in done.stdout


@pytest.mark.parametrize("module", LIGHT)
def test_importing_a_light_room_loads_nothing_heavy(module: str) -> None:
    program = f"import sys, {module}\nprint([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "[]\n"
