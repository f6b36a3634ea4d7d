"""An agent-loop manager that has the rollout servers hang once a checkpoint is saved, to be named in a run's
configuration."""

import signal
from pathlib import Path

import psutil

from speciarl.training.agent_loop_manager import GroupAgentLoopManager

STOPPED = "stopped.txt"
"""In the checkpoint's directory: process ids, one a line, for whoever has to kill what would never end."""
SERVERS = ("vLLMHttpServer", "EngineCore")


def servers() -> list[psutil.Process]:
    """The rollout server's processes in the same Ray session as this one, which is a worker of it."""
    raylet = psutil.Process().parent()
    assert raylet is not None
    return [process for process in raylet.children(recursive=True) if any(name in _title(process) for name in SERVERS)]


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()) or process.name()
    except psutil.NoSuchProcess:
        return ""


class StuckManager(GroupAgentLoopManager):
    """Runs in the trainer's process. Between saving a checkpoint and sending new weights, the servers stop."""

    def save_memory(self, checkpoint: Path) -> None:
        """See the base class."""
        super().save_memory(checkpoint)
        found = servers()
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        (checkpoint.parent / STOPPED).write_text("\n".join(str(process.pid) for process in found))
        for process in found:
            process.send_signal(signal.SIGSTOP)
