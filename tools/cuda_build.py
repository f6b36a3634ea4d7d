"""What it takes to build a CUDA extension of our torch: cards to build it for, a toolkit, a compiler, memory."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

CUDA_MAJOR = 13  # of the CUDA that torch 2.11 is built for
# What flash-attention can be built for, by the first number of a compute capability: code for 8.0 runs on 8.9 too.
ARCHITECTURES = {8: "80", 9: "90", 10: "100", 12: "120"}
USUAL_HOME = "/usr/local/cuda"
GIB_PER_JOB = 8  # the largest kernels were seen to pass 6 GiB in the compiler, for one architecture


class Toolkit(NamedTuple):
    """A CUDA toolkit that can build extensions of our torch."""

    home: Path
    release: str
    of_lock: bool
    """Whether it is made of the wheels that the lock holds."""


class Machine(NamedTuple):
    """What decides whether an extension can be built here."""

    architectures: str
    """To build for, as flash-attention names them, with semicolons; empty if there is no such card in sight."""
    toolkit: Toolkit | None
    compiler: str | None
    """Path of the C++ compiler."""

    def hindrance(self) -> str:
        """Why nothing can be built, with the remedy; empty if it can."""
        if not self.architectures:
            return "no GPU that it could be built for is in sight (FLASH_ATTN_CUDA_ARCHS=90 names one of another node)"
        if self.toolkit is None:
            return f"there is no nvcc of CUDA {CUDA_MAJOR} to build it with (CUDA_HOME names a toolkit)"
        if self.compiler is None:
            return "there is no C++ compiler to build it with (Debian, Ubuntu: apt install g++)"
        return ""


def inspect(venv: Path, capabilities: Sequence[str]) -> Machine:
    """Look at this machine, given the compute capability of each card (``9.0``).

    Variables that torch and flash-attention know go first, as they do there: CUDA_HOME, CXX, FLASH_ATTN_CUDA_ARCHS.
    """
    wanted = os.environ.get("FLASH_ATTN_CUDA_ARCHS") or architectures(capabilities)
    return Machine(wanted, find_toolkit(venv), shutil.which(os.environ.get("CXX") or "c++"))


def architectures(capabilities: Sequence[str]) -> str:
    """What to build for, given the compute capability of each card."""
    majors = {int(capability.split(".")[0]) for capability in capabilities if re.fullmatch(r"\d+\.\d+", capability)}
    return ";".join(ARCHITECTURES[major] for major in sorted(majors & ARCHITECTURES.keys()))


def find_toolkit(venv: Path) -> Toolkit | None:
    """The toolkit that torch would find, else that of the lock; only of the CUDA that torch is built for."""
    nvcc = shutil.which("nvcc")
    on_path = nvcc and Path(nvcc).resolve().parents[1]
    named = (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), on_path, USUAL_HOME)
    homes = [(Path(home), False) for home in named if home]
    homes += [(home, True) for home in venv.glob(f"lib/python3.*/site-packages/nvidia/cu{CUDA_MAJOR}")]
    for home, of_lock in homes:
        # What torch's headers include. An nvcc on PATH may be a small script, with its toolkit elsewhere.
        if not (home / "include" / "cusparse.h").is_file():
            continue
        command = [str(home / "bin" / "nvcc"), "--version"]
        try:
            answer = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
        except (OSError, subprocess.SubprocessError):
            continue
        release = re.search(r"release (\d+)\.\d+", answer)
        if release and int(release[1]) == CUDA_MAJOR:
            return Toolkit(home, release[0], of_lock)
    return None


def jobs(cores: int, memory_gib: float) -> int:
    """How many files to compile at once."""
    return max(1, min(cores, int(memory_gib / GIB_PER_JOB)))


def available_gib() -> float:
    """Main memory that may still be used, also by the limit of a container."""
    meminfo = Path("/proc/meminfo").read_text()
    bounds = [int(kib) * 1024 for kib in re.findall(r"MemAvailable:\s+(\d+)", meminfo)]
    for limit in (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")):
        bounds += [int(number) for number in re.findall(r"\d+", limit.read_text())] if limit.exists() else []
    return min(bounds, default=0) / 2**30


def variables(machine: Machine, toolkit: Toolkit, venv: Path, scratch: Path) -> dict[str, str]:
    """Environment of the build: for these cards, with this toolkit, within the memory there is.

    Args:
        machine: what to build for.
        toolkit: what to build with.
        venv: the environment that has torch.
        scratch: directory that lasts as long as the build.
    """
    chosen = {
        "CUDA_HOME": str(toolkit.home),
        "FLASH_ATTN_CUDA_ARCHS": machine.architectures,
        # Else flash-attention's set-up looks for a wheel on its own pages, and takes one for CUDA 12 for ours.
        "FLASH_ATTENTION_FORCE_BUILD": "TRUE",
        "MAX_JOBS": os.environ.get("MAX_JOBS") or str(jobs(len(os.sched_getaffinity(0)), available_gib())),
        "NVCC_THREADS": "1",
        # torch looks for ninja there, and without it compiles one file after the other.
        "PATH": f"{venv / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}",
    }
    if toolkit.of_lock:
        # Wheels hold libraries under the names of their versions, which linkers do not look for.
        for library in (toolkit.home / "lib").glob("libcudart.so.*"):
            (scratch / "libcudart.so").symlink_to(library)
        chosen["LIBRARY_PATH"] = str(scratch)
        # The lock's compiler is a minor release newer than the CUDA headers beside it, which its C++ library refuses.
        chosen["NVCC_APPEND_FLAGS"] = "-DCCCL_DISABLE_CTK_COMPATIBILITY_CHECK"
    return chosen
