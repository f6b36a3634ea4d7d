"""Quiet terminal: what libraries and their child processes print goes to a file, and only ours to the terminal."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console


@contextlib.contextmanager
def logged_to(path: Path) -> Iterator[Console]:
    """Console on the terminal, while all else that is printed, by child processes too, is appended to a file.

    On the level of file descriptors, since engines are processes that inherit them and have no other setting for it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    kept = {number: os.dup(number) for number in (1, 2)}
    terminal = os.fdopen(os.dup(1), "w", encoding=sys.stdout.encoding, errors="backslashreplace")
    try:
        with path.open("ab") as log, terminal:
            for number in kept:
                os.dup2(log.fileno(), number)
            yield Console(file=terminal)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, copy in kept.items():
            os.dup2(copy, number)
            os.close(copy)
