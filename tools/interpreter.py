"""The Python that an environment is made with: one of this machine, else one that uv fetches.

Runs on the Python that is there, so it keeps to syntax and modules that older versions know.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bootstrap_error import BootstrapError

OLDEST, NEWEST = (3, 11), (3, 12)  # 3.12 is the newest that veRL 0.9.1 supports
# Tried in this order if the running Python is out of range.
CANDIDATES = ("python3.12", "python3.11", "python3", "python")
FETCHED = "3.12"
DOWNLOAD_DEADLINE_S = 900
REMEDY = "install one and name it: make PYTHON=/path/to/python3.12 ..."


def version_of(python: str) -> tuple[int, int] | None:
    """(major, minor) of an interpreter, or None if it does not run."""
    probe = [python, "-c", "import sys; print(*sys.version_info[:2])"]
    try:
        answer = subprocess.run(probe, capture_output=True, text=True, timeout=30, check=True).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return None
    return int(answer[0]), int(answer[1])


def find_python(wanted: str, place: Path) -> str:
    """Path of a suitable interpreter: the one asked for; else this one, the first suitable one on PATH, or a new one.

    Args:
        wanted: name or path of the only interpreter to be considered; empty for any.
        place: directory for an interpreter that has to be fetched.

    Raises:
        BootstrapError: there is none, and none can be fetched.
    """
    seen = []
    for candidate in [wanted] if wanted else [sys.executable, *CANDIDATES]:
        path = shutil.which(candidate)
        version = version_of(path) if path else None
        if path and version and OLDEST <= version <= NEWEST:
            return path
        if version:
            seen.append(f"{candidate} is {version[0]}.{version[1]}")
    found = "; ".join(dict.fromkeys(seen)) or f"{wanted or 'none'} was found"
    if wanted:
        raise BootstrapError(f"Python 3.11 or 3.12 is needed, but {found}; {REMEDY}")
    return fetch_python(place, found)


def fetch_python(place: Path, found: str) -> str:
    """Path of a Python below ``place``, fetched there unless it is there already. ``found``: what this machine has.

    uv itself comes from the package index, like everything else; the interpreter that it installs does not, as there
    is none on it.
    """
    if not fetched(place):
        print(
            f"  Python 3.11 or 3.12 is needed, but {found}: fetching uv from the package index and, through it, Python "
            f"{FETCHED} from uv's source (GitHub, or the mirror that uv is configured for) into {place}",
            flush=True,
        )
        uv = shutil.which("uv")
        if uv is None:
            pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-input"]
            obtain([*pip, "--target", str(place / "uv"), "uv"], found)
            uv = str(place / "uv" / "bin" / "uv")
        obtain([uv, "python", "install", FETCHED, "--install-dir", str(place), "--no-bin", "--no-progress"], found)
    python = fetched(place)
    if not python:
        raise BootstrapError(f"uv put no working Python {FETCHED} into {place}; {REMEDY}")
    return python


def fetched(place: Path) -> str:
    """Path of a working interpreter that was fetched before, or an empty string."""
    for path in sorted(place.glob(f"cpython-{FETCHED}.*/bin/python{FETCHED}")):
        if version_of(str(path)):
            return str(path)
    return ""


def obtain(command: Sequence[str], found: str) -> None:
    """Run one command that needs the network; if it fails, its last line says why."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_DEADLINE_S)
    except subprocess.TimeoutExpired:
        cause = f"no end after {DOWNLOAD_DEADLINE_S} s"
    except OSError as error:
        cause = str(error)
    else:
        if done.returncode == 0:
            return
        cause = ([line.strip() for line in done.stderr.splitlines() if line.strip()] or ["no message"])[-1]
    what = "uv from the package index" if "pip" in command else f"Python {FETCHED} with uv"
    raise BootstrapError(f"Python 3.11 or 3.12 is needed, but {found}, and {what} cannot be had ({cause}); {REMEDY}")
