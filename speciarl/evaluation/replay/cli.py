"""The command ``speciarl replay``: any reward, noise, number of rollouts or judge over a verdict log."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from speciarl.errors import ConfigError
from speciarl.utils.atomic_files import write_text
from speciarl.utils.cli_errors import one_line_io_errors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from speciarl.evaluation.replay.rollouts import Rollouts


def command(
    log: Annotated[
        Path,
        typer.Argument(
            help="Folder that trainer.rollout_data_dir or validation_data_dir named, a run's folder in a service's "
            "verdict log, or the output of an evaluation.",
            show_default=False,
        ),
    ],
    reward: Annotated[
        str,
        typer.Option(
            help="Rewards, apart by commas: names or module:function, parameters in brackets: 'dynamic(support=2)'."
        ),
    ] = "dynamic",
    noise: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Probability that a verdict moves by one rung; as logged where left out."),
    ] = None,
    noise_seed: Annotated[
        int | None, typer.Option(help="Seed of that noise; the run's, else training's default.")
    ] = None,
    n: Annotated[
        int | None,
        typer.Option("--n", min=1, help="Rollouts of a group: larger groups are split in order of their rollouts."),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            help="A judge of the log, where it has several; else an option of recipe/verifier or a .yaml file, which "
            "judges the answers anew."
        ),
    ] = None,
    judge_key: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE of that judge, e.g. model=NAME; may be repeated.")
    ] = None,
    check: Annotated[bool, typer.Option(help="Compute the rewards that the run logged again, and compare.")] = True,
    json_file: Annotated[Path | None, typer.Option("--json", help="File to write everything to as JSON.")] = None,
    markdown_file: Annotated[Path | None, typer.Option("--markdown", help="File to write the tables to.")] = None,
) -> None:
    """Replay rewards over the verdicts that a training or evaluation run logged; nothing is generated again.

    The exit code is 1 if the rewards that the run logged come out otherwise, 2 if the log or a setting is unfit.
    """
    from speciarl.evaluation.replay import log as logs
    from speciarl.evaluation.replay import rewards
    from speciarl.evaluation.replay.check import against_log
    from speciarl.evaluation.replay.members import chosen_noise
    from speciarl.evaluation.replay.replay import replay
    from speciarl.evaluation.replay.report import as_json, as_markdown, show

    with one_line_io_errors():
        wanted = rewards.parse(reward)
        rollouts, judged = logs.read(log, judge)
        compared = against_log(rollouts) if check and rollouts.logged is not None else None
        drawn = None
        if noise is not None or noise_seed is not None or not judged:
            drawn = chosen_noise(rollouts, noise, noise_seed)
        if judge is not None and not judged:
            rollouts = _judged_anew(rollouts, judge, judge_key or [])
        elif judge_key:
            raise ConfigError("--judge-key changes a judge that judges anew; give --judge with one that the log lacks")
        found = replay(rollouts, wanted, log=str(log), judge=judge or "as logged", noise=drawn, n=n, check=compared)
        if json_file is not None:
            write_text(json_file, as_json(found))
        if markdown_file is not None:
            write_text(markdown_file, as_markdown(found))
    show(found, Console())
    if found.check is not None and found.check.first_difference:
        raise typer.Exit(1)


def _judged_anew(rollouts: Rollouts, judge: str, keys: Sequence[str]) -> Rollouts:
    from speciarl.evaluation.replay.rejudge import rejudged
    from speciarl.verifier_server.audit import running
    from speciarl.verifier_server.judge_config import judge_config

    with running(judge_config(judge, keys)) as config:
        return rejudged(rollouts, config)
