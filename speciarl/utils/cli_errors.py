"""Errors of commands: one line on standard error that begins with ``speciarl:``, and an exit code."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import NoReturn

import typer

from speciarl.errors import SpeciaRLError

TROUBLE = 1
"""Exit code for an interruption and for disk trouble."""
USAGE_ERROR = 2
"""Exit code for whatever raises a SpeciaRLError: wrong input, unfit data, a download that failed."""


def say(line: object) -> None:
    """Print one line for the user, in a form that stands out among the logs of libraries."""
    print(f"speciarl: {line}", file=sys.stderr, flush=True)


def refuse(problem: object) -> NoReturn:
    """End the command with one line, because of what the user gave it."""
    say(problem)
    raise typer.Exit(USAGE_ERROR)


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """End the command with one line for a SpeciaRLError."""
    try:
        yield
    except SpeciaRLError as error:
        say(error)
        raise typer.Exit(USAGE_ERROR) from error


@contextlib.contextmanager
def one_line_io_errors() -> Iterator[None]:
    """End the command with one line for a SpeciaRLError, disk trouble or an interruption; for commands with files."""
    try:
        with one_line_errors():
            yield
    except OSError as error:
        say(f"{error.filename or 'file'}: {error.strerror or error}")
        raise typer.Exit(TROUBLE) from error
    except KeyboardInterrupt as error:
        say("interrupted; finished files are complete, no half-written ones are left")
        raise typer.Exit(TROUBLE) from error
