"""Ends of commands: one line on standard error that begins with ``speciarl:``, and an exit code."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import NoReturn

import typer

from speciarl.errors import SpeciaRLError

TROUBLE = 1
"""Interrupted, disk or network trouble."""
USAGE_ERROR = 2
"""Wrong input or unfit data."""


def say(line: object) -> None:
    """Tell the user one line, in a form that stands out among the logs of the libraries below."""
    print(f"speciarl: {line}", file=sys.stderr, flush=True)


def refuse(problem: object) -> NoReturn:
    """End the command for what the user gave it."""
    say(problem)
    raise typer.Exit(USAGE_ERROR)


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """End the command at an error of ours with its one line."""
    try:
        yield
    except SpeciaRLError as error:
        say(error)
        raise typer.Exit(USAGE_ERROR) from error


@contextlib.contextmanager
def told(
    interrupted: str = "interrupted; finished files are complete, no half-written ones are left",
) -> Iterator[None]:
    """The same for commands that read and write files: disk trouble and interruption get one line as well.

    `interrupted` is what Ctrl-C leaves behind.
    """
    try:
        with one_line_errors():
            yield
    except OSError as error:
        problem = error.strerror or error
        say(f"{error.filename}: {problem}" if error.filename else problem)
        raise typer.Exit(TROUBLE) from error
    except KeyboardInterrupt as error:
        say(interrupted)
        raise typer.Exit(TROUBLE) from error
