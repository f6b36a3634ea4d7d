"""Ends of commands: one line on standard error that begins with ``speciarl:``, and an exit code."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import NoReturn

from speciarl.errors import SpeciaRLError

TROUBLE = 1
"""Interrupted, disk or network trouble."""
USAGE_ERROR = 2
"""Wrong input or unfit data; of a run, any of our errors."""


def say(line: object) -> None:
    """Tell the user one line, in a form that stands out among the logs of the libraries below."""
    print(f"speciarl: {line}", file=sys.stderr, flush=True)


def end(problem: object, code: int) -> NoReturn:
    """End the process with one line, whoever runs the command: typer, Hydra or Python."""
    say(problem)
    raise SystemExit(code)


def refuse(problem: object) -> NoReturn:
    """End the command for what the user gave it."""
    end(problem, USAGE_ERROR)


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """End the command at an error of ours with its one line."""
    try:
        yield
    except SpeciaRLError as error:
        refuse(error)


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
        end(f"{error.filename}: {problem}" if error.filename else problem, TROUBLE)
    except KeyboardInterrupt:
        end(interrupted, TROUBLE)
