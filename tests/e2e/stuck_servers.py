"""Loaded into the actor's process (``actor_rollout_ref.model.external_lib``): has the rollout servers hang once a
checkpoint is saved, which is when they are due new weights."""

import contextlib
import os
import signal
from pathlib import Path
from typing import Any

import psutil

STUCK_AFTER = "SPECIARL_TEST_STUCK_AFTER"
"""Environment variable with the step after whose checkpoint the servers stop; without it nothing does."""
STOPPED = "stopped.txt"
"""In the run's directory: process ids, one a line, for whoever has to kill what would never end."""
SERVERS = ("vLLMHttpServer", "EngineCore")


def servers() -> list[psutil.Process]:
    """The rollout server's processes in the same Ray session as this one, which is a worker of it."""
    raylet = psutil.Process().parent()
    assert raylet is not None
    return [process for process in raylet.children(recursive=True) if any(name in _title(process) for name in SERVERS)]


def kill_stopped(folder: Path) -> list[int]:
    """Kill what was stopped, as it ends with nothing else; returns its process ids."""
    listed = folder / STOPPED
    pids = [int(line) for line in listed.read_text().split()] if listed.is_file() else []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(pid).kill()
    return pids


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()) or process.name()
    except psutil.NoSuchProcess:
        return ""


def _stop_servers(run: Path) -> None:
    found = servers()
    (run / STOPPED).write_text("\n".join(str(process.pid) for process in found))
    for process in found:
        process.send_signal(signal.SIGSTOP)


if STUCK_AFTER in os.environ:
    from verl.utils.checkpoint.fsdp_checkpoint_manager import FSDPCheckpointManager

    _save = FSDPCheckpointManager.save_checkpoint

    def save_checkpoint(self: Any, local_path: str, *args: Any, **kwargs: Any) -> None:
        """Saves global_step_N/actor in the run's directory, then stops the servers if N is the step."""
        _save(self, local_path, *args, **kwargs)
        checkpoint = Path(local_path).parent
        if checkpoint.name == f"global_step_{os.environ[STUCK_AFTER]}":
            _stop_servers(checkpoint.parent)

    FSDPCheckpointManager.save_checkpoint = save_checkpoint
