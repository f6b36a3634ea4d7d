"""Ends of commands: one line for what went wrong, and an exit code."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import typer

from speciarl.errors import DataPrepError

TROUBLE = 1
"""Interrupted, disk or network trouble."""
USAGE_ERROR = 2
"""Wrong input or unfit data."""


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Turn what can go wrong into one line and an exit code."""
    try:
        yield
    except DataPrepError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(USAGE_ERROR) from error
    except OSError as error:
        typer.echo(f"error: {error.filename or 'file'}: {error.strerror or error}", err=True)
        raise typer.Exit(TROUBLE) from error
    except KeyboardInterrupt as error:
        typer.echo("interrupted; finished files are complete, no half-written ones are left", err=True)
        raise typer.Exit(TROUBLE) from error
