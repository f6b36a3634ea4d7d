"""A sweep as in examples/sweep: GRPO with the static and with the dynamic reward, two runs in one process."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from laptop_run import DEADLINE_S, STEPS, LaptopRun, command
from loss_spy import FOLDER

EXAMPLE = Path(__file__).parents[2] / "examples" / "sweep"
REWARDS = ("binary", "dynamic")
"""In the order of the runs."""
_CHOSEN_BY_THE_SWEEP = ("trainer.default_local_dir=", "trainer.logger=", "trainer.rollout_data_dir=", "hydra.run.dir=")


@dataclass(frozen=True, slots=True)
class GrpoSweep:
    """Its directory, finished."""

    folder: Path

    @classmethod
    def trained(cls, folder: Path, data: Path) -> Self:
        """Train unless the directory holds a finished sweep.

        Raises AssertionError with the end of the log when a run fails.
        """
        finished = folder / "finished"
        if not finished.is_file():
            folder.mkdir(parents=True)  # a sweep that failed is not tried again
            _train(folder, data)
            finished.touch()
        return cls(folder)

    @property
    def losses(self) -> Path:
        """What `loss_spy` kept, of both runs in their order."""
        return self.folder / "losses"

    def run(self, reward: str) -> LaptopRun:
        """One of the two; the log is that of both."""
        metrics = self.folder / "speciarl-runs" / f"grpo-{reward}.jsonl"
        return LaptopRun.ended(self.folder / "sweeps" / f"grpo-{reward}", 0, metrics, self.folder / "log")


def _train(folder: Path, data: Path) -> None:
    words = [word for word in command(folder, data) if not word.startswith(_CHOSEN_BY_THE_SWEEP)]
    words[3:3] = ["--config-dir", str(EXAMPLE)]  # options go before overrides
    words += [
        "+sweep=directories", f"recipe/reward={','.join(REWARDS)}",
        f"trainer.test_freq={STEPS}", "data.val_max_samples=16",
        "trainer.rollout_data_dir=${trainer.default_local_dir}/rollouts",
        "actor_rollout_ref.model.external_lib=loss_spy",
        # Without warming up, which would leave the policy where it is in the first step.
        "actor_rollout_ref.actor.optim.lr_warmup_steps=0",
    ]  # fmt: skip
    variables = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), FOLDER: str(folder / "losses")}
    log = folder / "log"
    with log.open("wb") as output:
        done = subprocess.run(
            words, stdout=output, stderr=subprocess.STDOUT, cwd=folder, env=variables, timeout=2 * DEADLINE_S
        )
    assert done.returncode == 0, log.read_text(errors="replace")[-8000:]
