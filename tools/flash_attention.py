"""flash-attention in an environment: a wheel if pip finds one, else built for this machine's cards, else left out.

The package index has no wheel of it for torch 2.11, and building takes a CUDA compiler and up to an hour. It is the
last step, and the only one that may fail: all else is there by then, and runs go on without it (docs/install.md).
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cuda_build

REQUIREMENT = "flash-attn==2.8.3"
BUILD_TOOLS = ("ninja", "packaging", "psutil", "setuptools", "wheel")
# Includes what the extension includes, so that what lacks is known in seconds and not after an hour.
TRIAL = """\
#include <Python.h>
#include <cublas_v2.h>
#include <cusolverDn.h>
#include <cusparse.h>
#include <cuda/std/type_traits>
__global__ void nothing() {}
"""

Run = Callable[[Sequence[str], Mapping[str, str]], bool]
"""Runs a command with variables added to its environment; returns whether it succeeded."""


class Outcome(NamedTuple):
    """How it ended the last time; kept, so that nothing is tried twice."""

    inputs: str
    """All that decided it."""
    built_for: str = ""
    """Architectures of a build of ours; empty for a wheel."""
    missing: str = ""
    """Why there is no flash-attention; empty if there is."""


class FlashAttention:
    """flash-attention in one environment.

    Args:
        venv: the environment, with everything else installed.
        pip: beginning of the commands that install something there.
        run: runs commands.
    """

    def __init__(self, venv: Path, pip: Sequence[str], run: Run) -> None:
        self._venv = venv
        self._python = str(venv / "bin" / "python")
        self._pip = list(pip)
        self._run = run

    def settle(self, machine: cuda_build.Machine, inputs: str, stamp: Path) -> Outcome:
        """Install it, or find out why not, unless that is known from the last time. ``inputs`` decide the outcome."""
        before = _read(stamp)
        if before.inputs == inputs and (self.present() or before.missing):
            return before._replace(missing="") if self.present() else before
        outcome = self._kept(machine, inputs, before.built_for) or self._obtain(machine, inputs)
        partial = stamp.with_suffix(".part")
        partial.write_text(json.dumps(outcome._asdict()), "utf-8")
        os.replace(partial, stamp)
        return outcome

    def present(self) -> bool:
        """Whether it is installed, by whomever."""
        return any(self._venv.glob("lib/python3.*/site-packages/flash_attn-*.dist-info"))

    def _kept(self, machine: cuda_build.Machine, inputs: str, built_for: str) -> Outcome | None:
        """What is there stays if it fits the torch that is there now, and the cards if we built it."""
        wanted, has = (set(names.split(";")) - {""} for names in (machine.architectures, built_for))
        if self._loads() and (not has or wanted <= has):
            return Outcome(inputs, built_for)
        self._remove()
        return None

    def _obtain(self, machine: cuda_build.Machine, inputs: str) -> Outcome:
        if self._install("--only-binary", ":all:"):
            return Outcome(inputs)
        hindrance = machine.hindrance()
        if not hindrance and machine.toolkit:
            print(f"no wheel; building for {machine.architectures}, up to an hour ... ", end="", flush=True)
            hindrance = self._build(machine, machine.toolkit)
        if hindrance:
            return Outcome(inputs, missing=f"pip finds no wheel that fits, and {hindrance}")
        return Outcome(inputs, built_for=machine.architectures)

    def _build(self, machine: cuda_build.Machine, toolkit: cuda_build.Toolkit) -> str:
        """Build it. Returns why that failed, or an empty string."""
        with tempfile.TemporaryDirectory() as folder:
            scratch = Path(folder)
            variables = cuda_build.variables(machine, toolkit, self._venv, scratch)
            if not self._compiles(toolkit, variables, scratch):
                return f"{toolkit.home / 'bin' / 'nvcc'} compiles no extension of this Python"
            # Without pip's cache, which does not tell builds for other cards or another torch.
            options = ("--no-build-isolation", "--no-cache-dir", "--no-binary", "flash-attn")
            done = self._run([*self._pip, *BUILD_TOOLS], {}) and self._install(*options, variables=variables)
        return "" if done else "building it failed"

    def _install(self, *options: str, variables: Mapping[str, str] | None = None) -> bool:
        """Install it in one way. What does not fit the installed torch is taken out again, as whatever imports it would
        fail, and runs look only whether it is there."""
        if not self._run([*self._pip, "--no-deps", *options, REQUIREMENT], variables or {}):
            return False
        if not self._loads():
            self._remove()
            return False
        return True

    def _loads(self) -> bool:
        return self.present() and self._run([self._python, "-c", "import torch, flash_attn, flash_attn_2_cuda"], {})

    def _remove(self) -> None:
        if self.present():
            self._run([self._python, "-m", "pip", "uninstall", "-q", "--yes", "flash-attn"], {})

    def _compiles(self, toolkit: cuda_build.Toolkit, variables: Mapping[str, str], scratch: Path) -> bool:
        source = scratch / "trial.cu"
        source.write_text(TRIAL)
        probe = [self._python, "-c", "import sysconfig; print(sysconfig.get_paths()['include'])"]
        include = subprocess.run(probe, capture_output=True, text=True).stdout.strip()
        command = [str(toolkit.home / "bin" / "nvcc"), f"-I{include}", f"-I{toolkit.home / 'include'}", "-std=c++17"]
        for architecture in variables["FLASH_ATTN_CUDA_ARCHS"].split(";"):
            command += ["-gencode", f"arch=compute_{architecture},code=sm_{architecture}"]
        return self._run([*command, "-c", str(source), "-o", str(scratch / "trial.o")], variables)


def _read(stamp: Path) -> Outcome:
    try:
        return Outcome(**json.loads(stamp.read_text("utf-8")))
    except (FileNotFoundError, ValueError, TypeError):  # no stamp, or one that an older version of this program wrote
        return Outcome("")
