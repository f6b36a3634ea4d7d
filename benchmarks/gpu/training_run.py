"""One run of the recipe as a child process: its metrics followed, its judge killed on the way, its memory watched."""

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from speciarl.verifier_server.pool.vllm_server import SUBREAPER

POLL_S = 0.5
SAMPLE_S = 1.0
GRACE_S = 60.0
TAIL_LINES = 25
STORED = "run.json"
"""What is kept of a finished run, so that it need not be repeated."""


@dataclass
class Run:
    """A finished run."""

    status: int | None
    """Exit status; None where the deadline ended it."""
    steps: dict[int, dict[str, Any]]
    """Logged metrics by step."""
    stored: dict[int, int]
    """Trajectories with a reward that were learnt from, by step."""
    seconds: float
    peak_gib: float
    """Most memory in use on the card at once, seen every second."""
    killed: str = ""
    """What was killed and when; empty for nothing."""
    said: str = ""
    """The run's own line about its end, where it ended by itself."""
    plan: dict[str, Any] = field(default_factory=dict)

    def keep(self, folder: Path) -> None:
        """Store it in its folder."""
        (folder / STORED).write_text(json.dumps(vars(self), indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "Run | None":
        """What `keep` stored; None where there is nothing."""
        file = folder / STORED
        if not file.is_file():
            return None
        kept = json.loads(file.read_text(encoding="utf-8"))
        for name in ("steps", "stored"):
            kept[name] = {int(step): value for step, value in kept[name].items()}
        return cls(**kept)


def run(
    folder: Path,
    words: Sequence[str],
    environment: Mapping[str, str],
    deadline_s: float,
    used_gib: Callable[[], float],
    kill: tuple[str, int] | None = None,
) -> Run:
    """Train to the end, or to the deadline, and leave no process behind.

    `kill` names a judge by its name in the server, and the step whose log line is waited for before the judge's server
    is killed (SIGKILL), in the middle of the step after it.
    """
    metrics, log = folder / "metrics.jsonl", folder / "train.log"
    command = [sys.executable, "-m", "verl.trainer.main_ppo", *words]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "command.txt").write_text("\n".join(command) + "\n", encoding="utf-8")
    started, killed, status = time.monotonic(), "", None
    with log.open("wb") as output, _peak(used_gib) as peak:
        child = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env={**environment, "VERL_FILE_LOGGER_PATH": str(metrics)}
        )
        try:
            while (status := child.poll()) is None and time.monotonic() - started < deadline_s:
                if kill is not None and not killed and kill[1] in read_steps(metrics):
                    killed = _kill_judge(child.pid, kill[0]) or ""
                time.sleep(POLL_S)
        finally:
            end(child)
    text = log.read_text(encoding="utf-8", errors="replace")
    return Run(
        status=status,
        steps=read_steps(metrics),
        stored=count_trajectories(folder / "rollouts"),
        seconds=time.monotonic() - started,
        peak_gib=peak[0],
        killed=killed,
        said=own_line(text),
    )


def read_steps(metrics: Path) -> dict[int, dict[str, Any]]:
    """The metrics of each finished training step; a line that is being written is left for later."""
    if not metrics.is_file():
        return {}
    lines = metrics.read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines if line.endswith("}")]
    return {int(row["step"]): row["data"] for row in rows if "timing_s/step" in row["data"]}


def count_trajectories(folder: Path) -> dict[int, int]:
    """Lines of each step's file of rollouts that hold a reward."""
    counts = {}
    for file in sorted(folder.glob("*.jsonl")):
        rows = map(json.loads, file.read_text(encoding="utf-8").splitlines())
        counts[int(file.stem)] = sum(row.get("score") is not None for row in rows)
    return counts


def own_line(log: str) -> str:
    """The last line by which a run of ours says why it ended; empty where there is none."""
    lines = [line.strip() for line in log.splitlines() if line.startswith("speciarl: ")]
    return lines[-1] if lines else ""


def tail(folder: Path) -> str:
    """The end of a run's log, for one that failed."""
    return "\n".join((folder / "train.log").read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:])


def end(child: "subprocess.Popen[bytes]") -> None:
    """End the run and all that it started, the judge included: first as Ctrl-C would, then by force."""
    with contextlib.suppress(psutil.NoSuchProcess):
        family = psutil.Process(child.pid).children(recursive=True)
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(GRACE_S)
        child.kill()
        _, left = psutil.wait_procs(family, timeout=GRACE_S / 2)
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=GRACE_S / 2)
    child.wait()


def _kill_judge(ancestor: int, name: str) -> str | None:
    """Kill the server of this name; says which process that was, None where none is to be found."""
    for process in psutil.Process(ancestor).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            words = process.cmdline()
            if "vllm.entrypoints.cli.main" in words and name in words and str(SUBREAPER) not in words:
                process.kill()
                return f"process {process.pid} at {time.strftime('%H:%M:%S')}"
    return None


@contextlib.contextmanager
def _peak(used_gib: Callable[[], float]) -> Any:
    """Watches the card until the block ends; gives a list of one number, the most that was seen."""
    most, over = [0.0], threading.Event()

    def watch() -> None:
        while not over.wait(SAMPLE_S):
            most[0] = max(most[0], used_gib())

    watcher = threading.Thread(target=watch, name="card-memory", daemon=True)
    watcher.start()
    try:
        yield most
    finally:
        over.set()
        watcher.join(2 * SAMPLE_S)
