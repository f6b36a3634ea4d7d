"""``speciarl calibrate``: how a judge errs, and what a run's HM would be without that."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from speciarl.utils.cli_errors import one_line_io_errors

UNFIT = 1
"""Exit code for a judge that agrees too little with the gold categories, or too often gives no verdict."""


def command(
    judge: Annotated[str, typer.Argument(help="An option of recipe/verifier, or a .yaml file with one judge's keys.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="KEY=VALUE, e.g. model=NAME prompt=strict.")] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option("--data", help="Parquet file in veRL's format, whose labels make the hierarchy."),
    ] = None,
    taxonomy: Annotated[Path | None, typer.Option("--taxonomy", help="Hierarchy instead: a taxonomy.json.")] = None,
    run: Annotated[Path | None, typer.Option("--run", help="Folder of an evaluation to correct.")] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder of the results.")] = Path("outputs/calibration"),
    per_kind: Annotated[int, typer.Option("--per-kind", min=1, help="Most gold pairs of each kind.")] = 100,
    repeats: Annotated[int, typer.Option("--repeats", min=0, help="Pairs to ask for again, alone.")] = 50,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Draws another sample.")] = 0,
    least_kappa: Annotated[
        float, typer.Option("--least-kappa", help="Quadratically weighted kappa that a fit judge has.")
    ] = 0.6,
    max_unscored: Annotated[
        float, typer.Option("--max-unscored", min=0, max=1, help="Share of pairs that may have no verdict.")
    ] = 0.01,
) -> None:
    """Calibrate a judge on gold pairs, whose category follows from a hierarchy of names.

    Writes calibration.json and calibration.md. With --run, the HM of an evaluation's cells is corrected for what the
    judge confuses, and it is shown whether its judges order the models alike.

    The exit code is 1 for an unfit judge, 2 if the judge cannot be asked.
    """
    with one_line_io_errors(interrupted="interrupted; nothing was written"):
        from rich.console import Console

        from speciarl.evaluation.calibrate import report
        from speciarl.evaluation.calibrate.run import Wanted, calibration_of
        from speciarl.utils.atomic_files import write_text

        wanted = Wanted(tuple(data or ()), taxonomy, run, per_kind, repeats, seed)
        found = calibration_of(judge, overrides or (), wanted)
        out.mkdir(parents=True, exist_ok=True)
        write_text(out / "calibration.json", report.to_json(found))
        write_text(out / "calibration.md", report.to_markdown(found))
        report.show(found, Console())
    kappa = found.kappa_quadratic.value
    if kappa is None or kappa < least_kappa or found.unscored_share > max_unscored:
        raise typer.Exit(UNFIT)
