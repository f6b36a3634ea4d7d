"""A whole training run at laptop scale, small enough for a test: veRL's entry point, Ray, FSDP, vLLM, our worker.

Eight images with four rollouts each, two steps, the exact taxonomy judge, no validation and no checkpoint, unless the
overrides say otherwise. Most of its minute or two is start-up: have one run show several things, where the assertions
on each stay as sharp as they would be alone.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psutil

DEADLINE_S = 900.0
STEPS = 2
IMAGES, ROLLOUTS = 8, 4
TAIL_CHARS = 8000

_SIZES = (
    f"data.train_batch_size={IMAGES}",
    f"actor_rollout_ref.actor.ppo_mini_batch_size={IMAGES}",
    f"actor_rollout_ref.rollout.n={ROLLOUTS}",
    # veRL wants whole micro-batches
    f"actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu={IMAGES * ROLLOUTS}",
    f"actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu={IMAGES * ROLLOUTS}",
    f"actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu={IMAGES * ROLLOUTS}",
    f"trainer.total_training_steps={STEPS}",
    "trainer.val_before_train=false",
    "trainer.test_freq=-1",
    "trainer.save_freq=-1",
)


@dataclass(frozen=True, slots=True)
class LaptopRun:
    """A finished run."""

    folder: Path
    status: int
    """Exit status of the trainer."""
    metrics: dict[int, dict[str, Any]]
    """What was logged, by step; of a run in one folder, the last attempt."""
    log: str
    """All that the trainer printed."""

    @classmethod
    def ended(cls, folder: Path, status: int, metrics: Path, log: Path) -> Self:
        """A run by what it left."""
        rows = map(json.loads, metrics.read_text().splitlines()) if metrics.is_file() else []
        return cls(folder, status, {row["step"]: row["data"] for row in rows}, log.read_text(errors="replace"))

    def trajectories(self, step: int) -> list[dict[str, Any]]:
        """Every trajectory that was learnt from in a step, as stored: ``uid`` (PROMPT_SESSION_0), ``output``,
        ``score``, ``advantage``, ``response_tokens`` and the whole ``reward_extra_info`` record."""
        lines = (self.folder / "rollouts" / f"{step}.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def groups(self, step: int) -> dict[str, list[dict[str, Any]]]:
        """The same, by prompt, each in the order of its sessions."""
        groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in self.trajectories(step):
            groups[row["uid"].split("_")[0]].append(row)
        return {prompt: sorted(rows, key=lambda row: int(row["uid"].split("_")[1])) for prompt, rows in groups.items()}


def build_data(folder: Path) -> Path:
    """The emoji data set in a folder, built unless it is there."""
    if not (folder / "test.parquet").is_file():
        subprocess.run(
            [sys.executable, "-m", "data_prep", "emoji", "--out", str(folder)], check=True, timeout=DEADLINE_S
        )
    return folder


def command(folder: Path, data: Path, *overrides: str) -> list[str]:
    """The training command, which is veRL's own."""
    exact = ("recipe/verifier=taxonomy", f"speciarl.verifier.taxonomy={data}/taxonomy.json")
    return [
        sys.executable, "-m", "verl.trainer.main_ppo", "+recipe=[speciarl,laptop]",
        *(() if any(override.startswith("recipe/verifier=") for override in overrides) else exact),
        f"data.train_files={data}/train.parquet", f"data.val_files={data}/test.parquet",
        f"trainer.default_local_dir={folder}", f"trainer.rollout_data_dir={folder}/rollouts",
        "trainer.logger=[console,file]", f"hydra.run.dir={folder}/hydra", *_SIZES, *overrides,
    ]  # fmt: skip


def train(
    folder: Path,
    data: Path,
    *overrides: str,
    status: int | None = 0,
    deadline_s: float = DEADLINE_S,
    modules: Sequence[Path] = (),
    variables: Mapping[str, str] | None = None,
) -> LaptopRun:
    """Run to the end; later overrides win. Started again in the same folder it resumes, where a checkpoint was saved.

    `modules` are directories to import from, `variables` further environment variables, both for all its processes.

    Raises AssertionError with the end of the log when the exit status is another than asked for (None: any), or when
    the deadline passes, in which case everything of the run is killed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    metrics, log = folder / "metrics.jsonl", folder / "train.log"
    environment = {
        **os.environ,
        "VERL_FILE_LOGGER_PATH": str(metrics),
        "TENSORBOARD_DIR": str(folder / "tensorboard"),
        "PYTHONPATH": os.pathsep.join([*map(str, modules), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
        **(variables or {}),
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            command(folder, data, *overrides), stdout=output, stderr=subprocess.STDOUT, env=environment, cwd=folder
        )
        try:
            found = process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"not done after {deadline_s:g} s:\n{_tail(log)}") from None
        finally:
            _kill(process)
    assert status is None or found == status, f"exit status {found}:\n{_tail(log)}"
    return LaptopRun.ended(folder, found, metrics, log)


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    with contextlib.suppress(psutil.NoSuchProcess):
        victims = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        for victim in victims:
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.kill()
    process.wait()


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-TAIL_CHARS:]
