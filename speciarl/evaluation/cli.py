"""Commands of the evaluation: ``speciarl evaluate``, ``report``, ``replay`` and ``calibrate``."""

from __future__ import annotations

from typing import Annotated

import typer

from speciarl.evaluation.calibrate.cli import command as calibrate
from speciarl.evaluation.replay.cli import command as replay
from speciarl.evaluation.report.cli import app as report
from speciarl.utils.cli_errors import TROUBLE, one_line_io_errors, say

TEACHING = """Evaluate models on test sets: predict, verify, metrics, report.

Settings are KEY=VALUE words, as in veRL and Hydra, or the evaluation.yaml of an evaluation, which repeats it. The same
command goes on where it was stopped, and makes only what is missing.

\b
  evaluate preset=laptop                                   the demo's policy, before and after (after `make demo`)
  evaluate preset=paper models.mine.checkpoint=outputs/run models.mine.path=Qwen/Qwen2.5-VL-7B-Instruct
  evaluate preset=paper models.mine.path=Qwen/Qwen2.5-VL-7B-Instruct models.mine.adapter=my/lora
  evaluate preset=best_of_64                               64 answers at temperature .6
  evaluate models.base.path=DIR datasets.mine.file=data/mine/test.parquet judges.exact.use=qwen3_4b
  evaluate preset=paper prompts=[general,specific,my.txt]  other prompts, without building data again
  evaluate outputs/evaluation/evaluation.yaml sampling.n=64 sampling.temperature=.6
  evaluate preset=laptop --plan                            what would be reused, and why not more

\b
Files in `out`: evaluation.yaml (all settings), predictions/ and verdicts/ (parquet), results.json, report.html, .md,
.csv and .parquet. Every key is described in speciarl/evaluation/config.py; more: docs/evaluation.md.

Exit codes: 0 done, 1 more unscored than `max_unscored` or `max_failed` allows (or disk trouble), 2 wrong input.
"""


def evaluate(
    settings: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE...", help="Settings, see above.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Run nothing; say what is reused and what it costs.")] = False,
    only: Annotated[str | None, typer.Option("--only", help="One stage: predict, verify, metrics or report.")] = None,
    show: Annotated[bool, typer.Option("--show", help="Print the settings that would be used, and leave.")] = False,
    browse: Annotated[bool, typer.Option("--open", help="Open the report in a browser at the end.")] = False,
) -> None:
    """Evaluate models; its help is the text TEACHING."""
    with one_line_io_errors("interrupted; the same command goes on from here"):
        from rich.console import Console

        from speciarl.errors import ConfigError
        from speciarl.evaluation import compose

        config = compose.settings(settings or [])
        console = Console()
        if show:
            typer.echo(compose.written(config), nl=False)
        elif plan:
            from speciarl.evaluation import plan as planning

            planning.show(planning.plan(config, console), console)
        else:
            from speciarl.evaluation.run import Stage, run

            if only is not None and only not in list(Stage):
                raise ConfigError(f"--only {only}: there is no such stage; known: {', '.join(Stage)}")
            problems = run(config, console, Stage(only) if only else None)
            for problem in problems:
                say(problem)
            if browse:
                typer.launch(str(config.out / "report.html"))
            if problems:
                raise typer.Exit(TROUBLE)


def add_to(app: typer.Typer) -> None:
    """Add the commands to the program's."""
    app.command(help=TEACHING)(evaluate)
    app.add_typer(report, name="report")
    app.command(name="replay")(replay)
    app.command(name="calibrate")(calibrate)
