"""The command ``speciarl report``: reports from what an evaluation left, comparisons, and others' files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from speciarl.utils.cli_errors import one_line_io_errors

app = typer.Typer(help="Write, compare and rank reports of evaluations.", no_args_is_help=True, rich_markup_mode=None)
Folder = Annotated[Path, typer.Argument(help="Output folder of `speciarl evaluate`.")]


@app.command()
def write(folder: Folder) -> None:
    """Write the report again from results.json and the tables beside it."""
    from speciarl.evaluation import report
    from speciarl.evaluation.config import parse
    from speciarl.evaluation.matrix import RESULTS
    from speciarl.evaluation.results import load

    with one_line_io_errors():
        results = load(folder / RESULTS)
        config = parse({**results.settings, "out": str(folder), "log_to": []})
        report.show(results, Console())
        for file in report.write(config, results, folder):
            typer.echo(file)


@app.command()
def compare(first: Folder, second: Folder) -> None:
    """Paired differences between two evaluations, second minus first; refused where they are not comparable."""
    from speciarl.evaluation.report import compare as comparison
    from speciarl.evaluation.report.paired import paired

    with one_line_io_errors():
        comparison.show(comparison.compare(first, second, paired), Console())


@app.command()
def leaderboard(
    folders: Annotated[list[Path], typer.Argument(help="Folders with evaluations in them, at any depth.")],
) -> None:
    """Rank all runs below the folders, and mark those that are not comparable with the best."""
    from speciarl.evaluation.report import leaderboard as board

    with one_line_io_errors():
        board.show(board.entries(folders), Console())


@app.command(name="import")
def import_files(
    kind: Annotated[str, typer.Argument(help="release (the paper's NDJSON) or lmms-owc (its JSONL).")],
    files: Annotated[list[Path], typer.Argument(help="Files of predictions or verdicts.")],
    out: Annotated[Path, typer.Option(help="Folder for the tables and evaluation.yaml.")],
) -> None:
    """Read others' files into the tables of an evaluation."""
    from speciarl.evaluation.matrix import SETTINGS
    from speciarl.evaluation.report import foreign

    with one_line_io_errors():
        config = foreign.convert(files, kind, out)
        typer.echo(f"{len(config.models)} models on {len(config.datasets)} data sets in {out}; next:")
        for stage in ("metrics", "report"):
            typer.echo(f"  speciarl evaluate {out / SETTINGS} --only {stage}")
