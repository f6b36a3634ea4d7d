"""Rollout servers that hang when new weights are due."""

import contextlib
from pathlib import Path

import psutil
import pytest
from laptop_run import train
from stuck_loop import STOPPED

pytestmark = pytest.mark.timeout(1800)  # several runs, a minute each on an idle machine

DEADLINE_S = 30


def kill_servers(folder: Path) -> list[int]:
    """What was stopped ends with nothing else."""
    listed = folder / STOPPED
    pids = [int(line) for line in listed.read_text().split()] if listed.is_file() else []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(pid).kill()
    return pids


def test_a_server_that_hangs_ends_the_run_which_resumes(tmp_path: Path, laptop_data: Path) -> None:
    folder = tmp_path / "run"
    steps = ("trainer.save_freq=1", "trainer.total_training_steps=2")
    try:
        hung = train(
            folder, laptop_data, *steps, f"speciarl.training.weights_deadline_s={DEADLINE_S}",
            "actor_rollout_ref.rollout.agent.agent_loop_manager_class=stuck_loop.StuckManager",
            status=2, modules=[Path(__file__).parent],
        )  # fmt: skip
    finally:
        stopped = kill_servers(folder)
    assert stopped
    assert f"speciarl: the rollout servers did not take the new weights within {DEADLINE_S} s" in hung.log
    assert hung.metrics == {}
    assert (folder / "latest_checkpointed_iteration.txt").read_text() == "1"
    resumed = train(folder, laptop_data, *steps)
    assert sorted(resumed.metrics) == [2]
