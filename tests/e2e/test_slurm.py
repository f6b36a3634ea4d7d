"""Sweeps on a real SLURM cluster, as examples/sweep/README.md tells: a job for each run.

Skipped where SLURM's daemons or submitit's launcher are not installed.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from laptop_run import DEADLINE_S, command
from slurm_cluster import slurm_cluster, why_not

SWEEP = Path(__file__).parents[2] / "examples" / "sweep"
CHOSEN_BY_THE_SWEEP = ("trainer.default_local_dir=", "trainer.rollout_data_dir=", "hydra.run.dir=")
THIS_NODE = [
    "hydra.launcher.gpus_per_node=null", "hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=null",
    "ray_kwargs.ray_init.num_cpus=16", # slots, as in the laptop recipe, not cores
]  # fmt: skip

pytestmark = [
    pytest.mark.timeout(3 * DEADLINE_S),
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
]
pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="pip install 'speciarl[slurm]'")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with slurm_cluster(tmp_path_factory.mktemp("slurm")) as variables:
        yield variables


def sweep(folder: Path, data: Path, cluster: dict[str, str], *overrides: str) -> None:
    """Submit a sweep, and wait for all of its jobs."""
    words = [word for word in command(folder, data) if not word.startswith(CHOSEN_BY_THE_SWEEP)]
    words[3:3] = ["--config-dir", str(SWEEP)]  # options go before overrides
    with (folder / "log").open("wb") as log:
        done = subprocess.run(
            [*words, "+sweep=[directories,slurm]", *THIS_NODE, *overrides],
            stdout=log, stderr=subprocess.STDOUT, cwd=folder, env=os.environ | cluster, timeout=2.8 * DEADLINE_S,
        )  # fmt: skip
    assert done.returncode == 0, (folder / "log").read_text(errors="replace")[-8000:] + jobs(folder)


def jobs(folder: Path) -> str:
    """What the jobs printed."""
    return "\n".join(path.read_text(errors="replace")[-8000:] for path in sorted(folder.rglob(".submitit/**/*.out")))


def steps(folder: Path, name: str) -> list[int]:
    """The steps that a run logged, in the order of time."""
    lines = (folder / "speciarl-runs" / f"{name}.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


def test_every_run_is_a_job(tmp_path: Path, laptop_data: Path, cluster: dict[str, str]) -> None:
    sweep(tmp_path, laptop_data, cluster, "recipe/reward=binary,dynamic")
    submitted = {path.name.split("_0_log")[0] for path in tmp_path.rglob(".submitit/**/*_0_log.out")}
    assert len(submitted) == 2
    for name in ("grpo-binary", "grpo-dynamic"):
        assert steps(tmp_path, name) == [1, 2]
