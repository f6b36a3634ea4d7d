"""The command ``speciarl``: what is not training itself. Training is veRL's own command, with our recipes."""

import contextlib
import importlib
import warnings
from typing import Annotated

import typer
from rich.console import Console

import speciarl

TEACHING = """SpeciaRL trains vision-language models to be as specific as they can be without being wrong.

Train with veRL's own command; the recipes are options of it:

\b
  python -m verl.trainer.main_ppo +recipe=speciarl                       the paper's main run (GPUs)
  python -m verl.trainer.main_ppo +recipe=[speciarl,laptop]              the same at 1/1000, on a laptop
  python -m verl.trainer.main_ppo +recipe=speciarl recipe/verifier=NAME  another judge
  python -m verl.trainer.main_ppo +recipe=speciarl --cfg job             show the configuration, run nothing

Judges can be shared by runs and machines: `speciarl verifier serve`.

Evaluate what was trained with `speciarl evaluate`.

Make the images' files with `speciarl data build dataset=NAME` (the same as `python -m data_prep`).
"""

app = typer.Typer(help=TEACHING, no_args_is_help=True, add_completion=False, rich_markup_mode=None)
# Where packages are missing, `speciarl doctor` must still run: it says which.
with contextlib.suppress(ImportError):
    app.add_typer(importlib.import_module("speciarl.verifier_server.cli").app, name="verifier")
with contextlib.suppress(ImportError):
    app.add_typer(importlib.import_module("data_prep.cli").app, name="data")
with contextlib.suppress(ImportError):
    importlib.import_module("speciarl.evaluation.cli").add_to(app)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"speciarl {speciarl.__version__}")
        raise typer.Exit


@app.callback(help=TEACHING)
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show it and leave.")
    ] = False,
) -> None:
    """Options that stand before a command."""


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Check the installation and the machine.

    Looks at packages, plug-ins, recipes, accelerator, memory, disk and ports, and tells how to mend what is wrong.
    The exit code is 1 if something is.
    """
    from speciarl.doctor import examine, report

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of packages that are imported to see whether they can be
        findings = list(examine())
    if as_json:
        typer.echo(report.as_json(findings))
    else:
        report.as_table(findings, Console())
    if not report.is_healthy(findings):
        raise typer.Exit(1)


@app.command()
def recipes() -> None:
    """List the recipes and the options of each of their parts."""
    from speciarl.hydra_support import recipe_source

    directory = recipe_source.recipe_directory()
    for folder in (directory, *sorted(path for path in directory.iterdir() if path.is_dir())):
        override = "+recipe=" if folder == directory else f"recipe/{folder.name}="
        for file in sorted(folder.glob("*.yaml")):
            typer.echo(f"{override + file.stem:<30} {_first_sentence(file.read_text(encoding='utf-8'))}")


def _first_sentence(yaml: str) -> str:
    """First sentence of the comment at the top of a recipe, past Hydra's own header lines."""
    words: list[str] = []
    for line in yaml.splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @"):
            words += line.lstrip("# ").split()
    sentence, stop, _ = " ".join(words).partition(". ")
    return sentence + stop.strip()


def main() -> None:
    """Entry point of the console script."""
    app()
