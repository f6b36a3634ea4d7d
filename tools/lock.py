#!/usr/bin/env python3
"""Resolves the CPU and the GPU stack into requirements/lock-cpu.txt and requirements/lock-gpu.txt.

Both are resolved together first, so that every package which both have is in both at one version: what is tested on a
CPU is what runs on GPUs. Versions that stand in the locks already are kept where they still fit.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCKS = {stack: ROOT / "requirements" / f"lock-{stack}.txt" for stack in ("cpu", "gpu")}
EXTRAS = {"cpu": ("cpu", "dev"), "gpu": ("gpu", "flash", "dev")}
OLDEST_PYTHON = "3.11"
# What pyproject.toml resolves for ([tool.uv] environments) goes without saying.
ALWAYS = (
    r" and platform_machine == 'x86_64' and platform_python_implementation == 'CPython' and sys_platform == 'linux'",
    r"python_full_version < '3\.13' and ",
    r" ; python_full_version < '3\.13'$",
)


def resolve(extras: tuple[str, ...], output: Path, constraints: Path | None = None) -> None:
    """Write the versions that some extras need; one version for all Pythons where there is one."""
    command = [str(Path(sys.executable).with_name("uv")), "pip", "compile", "pyproject.toml", "--quiet"]
    command += ["--no-annotate", "--no-header", "--universal", "--fork-strategy", "fewest"]
    command += ["--python-version", OLDEST_PYTHON, "--output-file", str(output)]
    command += [word for extra in extras for word in ("--extra", extra)]
    command += ["--constraints", str(constraints)] if constraints else []
    subprocess.run(command, cwd=ROOT, check=True)


def main() -> None:
    """Write both locks."""
    with tempfile.TemporaryDirectory() as folder:
        together = Path(folder) / "both.txt"
        known = {line for lock in LOCKS.values() for line in lock.read_text("utf-8").splitlines()}
        together.write_text("\n".join(sorted(line for line in known if not line.startswith("#"))) + "\n", "utf-8")
        resolve((*EXTRAS["gpu"], *EXTRAS["cpu"]), together)
        for stack, lock in LOCKS.items():
            draft = Path(folder) / lock.name
            resolve(EXTRAS[stack], draft, together)
            lines = [re.sub("|".join(ALWAYS), "", line) for line in draft.read_text("utf-8").splitlines()]
            header = f"# Every version of the {stack.upper()} stack, for Python 3.11 and 3.12 on Linux."
            lock.write_text("\n".join([f"{header} Written by: make lock", *lines]) + "\n", "utf-8")


if __name__ == "__main__":
    main()
