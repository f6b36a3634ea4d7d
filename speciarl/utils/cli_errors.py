"""Errors of commands: one line on standard error that begins with ``speciarl:``, and an exit code."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import NoReturn

from speciarl.errors import SpeciaRLError

TROUBLE = 1
"""Exit code for an interruption and for disk trouble."""
USAGE_ERROR = 2
"""Exit code for whatever raises a SpeciaRLError: wrong input, unfit data, a download that failed."""


def say(line: object) -> None:
    """Print one line for the user, in a form that stands out among the logs of libraries."""
    # File names need not be UTF-8: what cannot be printed is escaped, instead of hiding the message behind an error.
    shown = str(line).encode("utf-8", "backslashreplace").decode()
    print(f"speciarl: {shown}", file=sys.stderr, flush=True)


def end(problem: object, code: int) -> NoReturn:
    """End the process with one line, whoever runs the command: typer, Hydra or Python."""
    say(problem)
    raise SystemExit(code)


def refuse(problem: object) -> NoReturn:
    """End the command with one line, because of what the user gave it."""
    end(problem, USAGE_ERROR)


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """End the command with one line for a SpeciaRLError."""
    try:
        yield
    except SpeciaRLError as error:
        refuse(error)


@contextlib.contextmanager
def one_line_io_errors(
    interrupted: str = "interrupted; finished files are complete, no half-written ones are left",
) -> Iterator[None]:
    """End the command with one line for a SpeciaRLError, disk trouble or an interruption; for commands with files.

    `interrupted` is what Ctrl-C leaves behind.
    """
    try:
        with one_line_errors():
            yield
    except OSError as error:
        problem = error.strerror or error
        end(f"{error.filename}: {problem}" if error.filename else problem, TROUBLE)
    except KeyboardInterrupt:
        end(interrupted, TROUBLE)
