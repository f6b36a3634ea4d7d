"""The NVIDIA driver of this machine: what it tells, and whether the GPU stack can run with it."""

from __future__ import annotations

import glob
import re
import shutil
import subprocess
from collections.abc import Sequence

from bootstrap_error import BootstrapError

OLDEST = 580  # of CUDA 13, which torch 2.11 is built for


def query(field: str) -> list[str]:
    """One property of each GPU, as nvidia-smi names it; none where no driver answers that knows it."""
    smi = shutil.which("nvidia-smi")
    if smi is None or not glob.glob("/dev/nvidia[0-9]*"):
        return []
    command = [smi, f"--query-gpu={field}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else []


def complaint(versions: Sequence[str]) -> str:
    """What is wrong with a driver of some version, on each GPU; empty if nothing is, or if no driver answers."""
    for version in versions:
        major = re.match(r"\d+", version)
        if major and int(major[0]) < OLDEST:
            return f"the NVIDIA driver is {version}, but torch 2.11 is built for CUDA 13, which needs {OLDEST} or newer"
    return ""


def choose_stack(asked: str, versions: Sequence[str]) -> str:
    """The stack to install, ``cpu`` or ``gpu``, where ``auto``, ``cpu`` or ``gpu`` was asked for.

    Raises:
        BootstrapError: there are GPUs, and their driver is too old. Who asks for ``gpu`` by name is told, but obeyed:
            the node that installs need not train, and NVIDIA's compatibility packages stand in for drivers.
    """
    if asked == "cpu" or (asked == "auto" and not versions):
        return "cpu"
    wrong = complaint(versions)
    if wrong and asked == "auto":
        raise BootstrapError(
            f"{wrong}. Update the driver, or train on the CPU: make STACK=cpu ... (make STACK=gpu ... installs all the "
            "same: for other nodes, or beside a CUDA compatibility package)"
        )
    if wrong:
        print(f"  warning: {wrong}; update the driver of the nodes that train", flush=True)
    return "gpu"
