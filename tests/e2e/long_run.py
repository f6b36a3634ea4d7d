"""A training run as a child process that a test watches, disturbs and starts again."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from speciarl.training.trainer.checkpoint import is_complete, newest_complete, tracked_step

DEADLINE_S = 600.0
POLL_S = 0.05


class LongRun:
    """One run's directory and command; every `start` is another attempt at the same run."""

    def __init__(self, folder: Path, data: Path, overrides: Sequence[str]) -> None:
        self.folder = folder
        self.rollouts = folder / "rollouts"
        """What veRL dumps of every stored trajectory, one file per step."""
        self._data, self._overrides = data, overrides
        self._words = [
            sys.executable, "-m", "verl.trainer.main_ppo", "+recipe=[speciarl,laptop]",
            f"data.train_files={data}/train.parquet", f"data.val_files={data}/test.parquet",
            f"trainer.default_local_dir={folder}", f"trainer.rollout_data_dir={self.rollouts}",
            "trainer.logger=[console,file]", f"hydra.run.dir={folder}/hydra",
            "trainer.val_before_train=false", "trainer.test_freq=-1", "trainer.save_freq=-1",
            "data.train_batch_size=8", "actor_rollout_ref.actor.ppo_mini_batch_size=8", "actor_rollout_ref.rollout.n=4",
            "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=32",
            "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=32",
            "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=32", *overrides,
        ]  # fmt: skip
        self._attempts = 0
        self._process: subprocess.Popen[bytes] | None = None

    def elsewhere(self, folder: Path, *changes: str) -> "LongRun":
        """The same in another directory, with further overrides."""
        return LongRun(folder, self._data, [*self._overrides, *changes])

    @property
    def log(self) -> str:
        """All output of the current attempt."""
        return self._file("log").read_text(errors="replace")

    def start(self, *changes: str, variables: Mapping[str, str] | None = None) -> None:
        """Begin an attempt, with further overrides and environment variables."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._attempts += 1
        environment = {
            **os.environ, "VERL_FILE_LOGGER_PATH": str(self._file("jsonl")), "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": str(Path(__file__).parent),  # Ray's workers import `faulty_loop`
            **(variables or {}),
        }  # fmt: skip
        with self._file("log").open("wb") as log:
            self._process = subprocess.Popen(
                [*self._words, *changes], stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=self.folder,
                start_new_session=True,
            )  # fmt: skip

    def steps(self, attempt: int | None = None) -> dict[int, dict[str, Any]]:
        """Metrics of the steps that an attempt finished, numbered from 1; None: the current one."""
        path = self._file("jsonl", attempt)
        lines = path.read_text().splitlines() if path.is_file() else []
        rows = [json.loads(line) for line in lines if line.endswith("}")]
        return {row["step"]: row["data"] for row in rows}

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait while the attempt runs; fails when it ends before."""
        expires = time.monotonic() + DEADLINE_S
        while not condition():
            assert self._process is not None
            assert self._process.poll() is None, f"the run ended before {what}:\n{self.log[-8000:]}"
            assert time.monotonic() < expires, f"{what} did not happen within {DEADLINE_S:g} s:\n{self.log[-8000:]}"
            time.sleep(POLL_S)

    def wait_for_step(self, step: int) -> None:
        """Wait until a step is finished and logged."""
        self.wait_until(lambda: step in self.steps(), f"step {step}")

    def finish(self) -> int:
        """Wait for the end; returns the exit status. The processes that it leaves are ended."""
        assert self._process is not None
        try:
            return self._process.wait(DEADLINE_S)
        finally:
            self.end()

    def processes(self, title: str = "") -> list[psutil.Process]:
        """Those of the attempt whose title holds a text."""
        assert self._process is not None
        with contextlib.suppress(psutil.NoSuchProcess):
            return [one for one in psutil.Process(self._process.pid).children(recursive=True) if title in _title(one)]
        return []

    def kill(self) -> None:
        """Kill -9 of every process at once, as a machine that loses power would."""
        assert self._process is not None
        victims = self.processes()
        for victim in (psutil.Process(self._process.pid), *victims):
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.send_signal(signal.SIGKILL)
        self._process.wait(60)
        psutil.wait_procs(victims, timeout=60)

    def end(self) -> None:
        """End whatever still runs."""
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def trajectories(self, step: int) -> list[dict[str, Any]]:
        """What was stored, and learnt from, in a step."""
        return [json.loads(line) for line in (self.rollouts / f"{step}.jsonl").read_text().splitlines()]

    def saved_step(self) -> int:
        """The step that the next attempt resumes from; 0 without a checkpoint.

        As in the run: what the tracker names, which is written after everything else of a checkpoint."""
        step = tracked_step(self.folder)
        if step is not None and is_complete(self.folder / f"global_step_{step}"):
            return step
        return newest_complete(self.folder) or 0

    def _file(self, kind: str, attempt: int | None = None) -> Path:
        return self.folder / f"attempt-{attempt or self._attempts}.{kind}"


@contextlib.contextmanager
def running(run: LongRun) -> Iterator[LongRun]:
    """The run, which is ended with the block."""
    try:
        yield run
    finally:
        run.end()


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return ""
