"""Command ``speciarl verifier store``: statistics, export, import and pruning of a verdict store."""

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from speciarl.answer import NORMALISER_VERSION
from speciarl.category import Category
from speciarl.errors import SpeciaRLError
from speciarl.utils.cli_errors import refuse
from speciarl.utils.credentials import public_url
from speciarl.verifier_server.config import StoreConfig
from speciarl.verifier_server.store.factory import build_store, close_store
from speciarl.verifier_server.store.interface import StoreError, VerdictStore
from speciarl.verifier_server.store.key import JudgeIdentity
from speciarl.verifier_server.store.maintenance import Advance, PruneRule, Statistics, matching_judges
from speciarl.verifier_server.store.maintenance import prune as prune_store
from speciarl.verifier_server.store.maintenance import statistics as count_store
from speciarl.verifier_server.store.sqlite_store import FileStore

T = TypeVar("T")

CLOSE_S = 60.0
LOCK_S = 30.0
"""Seconds to wait for the lock of a run that writes at the same time, or for a reply of Redis."""

app = typer.Typer(help="Look into a verdict store, take it elsewhere, thin it out.", no_args_is_help=True)

Location = Annotated[str, typer.Argument(metavar="STORE", help="Path of the file, or redis://host:6379/0.")]
PasswordFile = Annotated[Path | None, typer.Option(help="File that holds the Redis password and nothing else.")]
Prefix = Annotated[str, typer.Option(help="First part of every Redis key.")]


@app.command()
def stats(
    store: Location,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    password_file: PasswordFile = None,
    prefix: Prefix = "speciarl",
) -> None:
    """Count the verdicts by judge and category."""

    async def count(opened: VerdictStore, advance: Advance) -> tuple[Statistics, dict[bytes, JudgeIdentity]]:
        return await count_store(opened, advance), dict(await opened.judges())

    found, judges = _run(_location(store, password_file, prefix), "counting", None, count)
    if as_json:
        typer.echo(json.dumps(_as_json(found, judges), indent=2))
    else:
        Console().print(_as_table(found, judges))


@app.command("export")
def export_command(
    store: Location,
    out: Annotated[Path, typer.Argument(metavar="OUT.parquet", help="The file to write.")],
    password_file: PasswordFile = None,
    prefix: Prefix = "speciarl",
) -> None:
    """Write every verdict, with its judge, pair, probabilities and time, to a parquet file."""
    from speciarl.verifier_server.store.parquet import export

    if not out.absolute().parent.is_dir():
        refuse(f"there is no folder {out.absolute().parent}; make it first")
    location = _location(store, password_file, prefix)
    done = _run(location, "exporting", None, lambda opened, advance: export(opened, out, advance))
    _report(f"{out}: {done.rows} verdicts", left_out_damaged=done.corrupt, left_out_of_unknown_judges=done.unknown)


@app.command("import")
def import_command(
    store: Location,
    file: Annotated[Path, typer.Argument(metavar="IN.parquet", help="A file that `export` wrote.")],
    password_file: PasswordFile = None,
    prefix: Prefix = "speciarl",
) -> None:
    """Add the verdicts of an exported file to a store, which is made when missing.

    Where the store has a verdict already, that one stays. Rows that were changed since they were exported are
    refused; the exit code is then 1.
    """
    from speciarl.verifier_server.store.parquet import count_rows, load

    location = _location(store, password_file, prefix, create=True)
    done = _run(location, "importing", count_rows(file), lambda opened, advance: load(opened, file, advance))
    _report(f"{store}: {done.rows} verdicts", already_there=done.kept, refused=done.refused)
    if done.refused:
        for example in done.examples:
            typer.echo(f"refused: {example}", err=True)
        raise typer.Exit(1)


@app.command()
def prune(
    store: Location,
    older_than: Annotated[float | None, typer.Option(min=0, metavar="DAYS", help="Entries older than this.")] = None,
    judge: Annotated[
        str | None, typer.Option(help="Entries of this judge: model name, or start of the fingerprint (see `stats`).")
    ] = None,
    keep: Annotated[int | None, typer.Option(min=0, metavar="N", help="Of the rest, all but the N newest.")] = None,
    damaged: Annotated[bool, typer.Option("--damaged", help="Damaged entries only.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count.")] = False,
    password_file: PasswordFile = None,
    prefix: Prefix = "speciarl",
) -> None:
    """Delete verdicts: by age and judge (both must apply when both are given), and down to a number.

    Damaged entries are always deleted. Deleted pairs are judged anew when they are asked for again.
    """
    if older_than is None and judge is None and keep is None and not damaged:
        refuse("say what to delete: --older-than, --judge, --keep or --damaged")

    async def prune_selected(opened: VerdictStore, advance: Advance) -> None:
        chosen = None
        if judge is not None:
            chosen = [match.fingerprint for match in matching_judges((await opened.judges()).values(), judge)]
            if not chosen:
                raise StoreError(f"{store} has no judge {judge!r}; `stats` lists those it has")
        before_us = None if older_than is None else int((time.time() - older_than * 86400) * 1e6)
        done = await prune_store(opened, PruneRule(before_us, chosen, keep), dry_run, advance)
        verb = "would be deleted" if dry_run else "deleted"
        _report(
            f"{store}: {done.deleted} entries {verb}, {done.left} left",
            by_age_or_judge=done.chosen,
            beyond_the_number_to_keep=done.surplus,
            damaged=done.corrupt,
        )

    _run(_location(store, password_file, prefix), "pruning", None, prune_selected)


Open = Callable[[], VerdictStore]


def _location(text: str, password_file: Path | None, prefix: str, create: bool = False) -> Open:
    if "://" not in text:
        return lambda: FileStore(text, LOCK_S, create)
    try:
        config = StoreConfig(
            kind="redis",
            url=text,
            prefix=prefix,
            password_file=None if password_file is None else str(password_file),
            timeout_s=LOCK_S,
        )
    except ValueError:
        refuse(f"{public_url(text)!r} is neither a path nor a Redis URL; write it like redis://host:6379/0")
    return lambda: build_store(config)


def _run(build: Open, verb: str, total: int | None, work: Callable[[VerdictStore, Advance], Awaitable[T]]) -> T:
    """Result of `work` on the opened store, with a progress bar on stderr; errors end the command with one line."""

    async def opened(advance: Advance) -> T:
        store = build()
        await store.open()
        try:
            return await work(store, advance)
        finally:
            await close_store(store, CLOSE_S)

    try:
        with _progress(verb, total) as advance:
            return asyncio.run(opened(advance))
    except SpeciaRLError as error:
        refuse(str(error))
    except OSError as error:
        refuse(f"{error.filename or 'file'}: {error.strerror}")


@contextlib.contextmanager
def _progress(verb: str, total: int | None) -> Iterator[Advance]:
    columns = (SpinnerColumn(), TextColumn(verb), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(verb, total=total)
        yield lambda count: progress.advance(task, count)


def _report(summary: str, **counts: int) -> None:
    details = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items() if count)
    typer.echo(f"{summary} ({details})" if details else summary)


def _day(microseconds: int) -> str:
    return datetime.fromtimestamp(microseconds / 1e6, UTC).strftime("%Y-%m-%d")


def _as_table(found: Statistics, judges: dict[bytes, JudgeIdentity]) -> Table:
    title = f"{found.verdicts} verdicts" + (f", {found.corrupt} damaged entries" if found.corrupt else "")
    table = Table("judge", "model", "verdicts", *(category.label for category in Category), "from", "to", title=title)
    for fingerprint, counts in found.judges.items():
        judge = judges.get(fingerprint)
        model = "unknown" if judge is None else model_of(judge)
        shares = (f"{counts.categories[category] / counts.verdicts:.3f}" for category in Category)
        days = (_day(counts.oldest_us), _day(counts.newest_us))
        table.add_row(fingerprint.hex()[:12], model, str(counts.verdicts), *shares, *days)
    return table


def model_of(judge: JudgeIdentity) -> str:
    """The judge's model and revision, and whether its verdicts are of another normaliser."""
    revision = f" @ {judge.revision}" if judge.revision else ""
    # Texts were compared in another form then: nothing finds these verdicts any more, and `prune` may take them.
    old = f" (old: normaliser {judge.normaliser})" if judge.normaliser != NORMALISER_VERSION else ""
    return f"{judge.model}{revision}{old}"


def _as_json(found: Statistics, judges: dict[bytes, JudgeIdentity]) -> dict[str, object]:
    listed = [
        {
            "fingerprint": fingerprint.hex(),
            "identity": json.loads(judges[fingerprint].to_json()) if fingerprint in judges else None,
            "verdicts": counts.verdicts,
            "categories": {category.label: counts.categories[category] for category in Category},
            "oldest": datetime.fromtimestamp(counts.oldest_us / 1e6, UTC).isoformat(),
            "newest": datetime.fromtimestamp(counts.newest_us / 1e6, UTC).isoformat(),
        }
        for fingerprint, counts in found.judges.items()
    ]
    return {"verdicts": found.verdicts, "damaged": found.corrupt, "judges": listed}
