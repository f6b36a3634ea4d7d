#!/usr/bin/env python3
"""Runs everything that is checked before a change lands, and says where the time went.

    python3 tools/suite.py [--venv .venv] [--stack auto|cpu|gpu] [--python PYTHON]

Standard library only, as the first stage is the set-up. Every stage runs, also after one that failed, except after a
failed set-up; the exit status is 0 when all passed.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SLOWEST = 10
# Runs of the whole stack are a minute of loading on one core before anything happens, so two share the machine. The
# long files are in tests/e2e and begin first; those of tests/integration fill what is left of both processes.
PYTEST = ("-m", "pytest", "--numprocesses", "2", "--dist", "loadfile", "--no-loadscope-reorder")


@dataclass(frozen=True, slots=True)
class Stage:
    """A command, and the file in which pytest leaves the time of each test, if it is one of pytest's."""

    name: str
    command: Sequence[str]
    report: Path | None = None


ENVIRONMENT = {"RAY_memory_usage_threshold": "0.98"}
"""Two whole stacks side by side take 22 GB at their peaks; Ray would kill their workers from 95 % of 24 GB on."""


def stages(venv: Path, reports: Path, setup: Sequence[str]) -> list[Stage]:
    """All of them, in their order; the first is the set-up."""
    binaries = venv / "bin"

    def pytest(name: str, *folders: str) -> Stage:
        report = reports / f"{name.replace(' ', '-')}.xml"
        return Stage(name, [str(binaries / "python"), *PYTEST, f"--junitxml={report}", *folders], report)

    return [
        Stage("set-up", [sys.executable, str(ROOT / "tools" / "bootstrap.py"), "--dev", "--venv", str(venv), *setup]),
        Stage("style", [str(binaries / "ruff"), "check", "."]),
        Stage("types", [str(binaries / "mypy")]),
        pytest("unit", "tests/unit"),
        pytest("end-to-end and integration", "tests/e2e", "tests/integration"),
    ]


def slowest(reports: Sequence[Path], count: int) -> list[tuple[float, str]]:
    """The tests that took longest, with what they waited for: seconds and name. A run that several tests look at is
    part of the first of them."""
    timed = []
    for report in reports:
        for case in xml.etree.ElementTree.parse(report).iter("testcase"):
            name = f"{case.get('classname', '').replace('.', '/')}::{case.get('name')}"
            timed.append((float(case.get("time", 0)), name))
    return sorted(timed, reverse=True)[:count]


def table(rows: Sequence[tuple[str, float, bool]], slow: Sequence[tuple[float, str]]) -> str:
    """What is printed at the end: each stage with its seconds and whether it passed, then the slowest tests."""
    lines = [f"{'stage':<28} {'seconds':>8}"]
    lines += [f"{name:<28} {seconds:8.1f}{'' if passed else '  FAILED'}" for name, seconds, passed in rows]
    lines += [f"{'all':<28} {sum(seconds for _, seconds, _ in rows):8.1f}", ""]
    lines += ["slowest tests, with the runs that they begin:"]
    lines += [f"{seconds:8.1f}  {name}" for seconds, name in slow]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line. Returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="directory of the environment")
    options, setup = parser.parse_known_args(arguments)
    rows: list[tuple[str, float, bool]] = []
    with tempfile.TemporaryDirectory() as folder:
        todo = stages(options.venv.absolute(), Path(folder), setup)
        for stage in todo:
            print(f"== {stage.name}", flush=True)
            begin = time.monotonic()
            passed = subprocess.run(stage.command, cwd=ROOT, env={**os.environ, **ENVIRONMENT}).returncode == 0
            rows.append((stage.name, time.monotonic() - begin, passed))
            if stage is todo[0] and not passed:
                break
        reports = [stage.report for stage in todo if stage.report is not None and stage.report.is_file()]
        print("\n" + table(rows, slowest(reports, SLOWEST)), flush=True)
    return 0 if all(passed for _, _, passed in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
