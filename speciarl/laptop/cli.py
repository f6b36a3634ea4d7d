"""``python -m speciarl.laptop``: pre-train, measure and train the miniature models."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from speciarl.errors import ConfigError
from speciarl.utils.cli_errors import one_line_io_errors

TEACHING = """The miniature world: build, pre-train and measure the tiny policy and judge (docs/laptop_models.md).

\b
  python -m speciarl.laptop policy --out models/policy                pre-train the policy (about 25 min)
  python -m speciarl.laptop judge --out models/judge                  pre-train the judge (about 30 min)
  python -m speciarl.laptop policy --out /tmp/try --scale 0.01        all stages in a minute, for useless weights
  python -m speciarl.laptop evaluate --model models/policy            measure a policy on held-out views
  python -m speciarl.laptop grpo --reward binary --json binary.json   the laptop run in plain PyTorch

Exit codes: 0 done, 1 interrupted or disk trouble, 2 wrong input.
"""

_HELD_OUT_DRAWS = 60_000

app = typer.Typer(help=TEACHING, no_args_is_help=True, add_completion=False, rich_markup_mode=None)

Seed = Annotated[int, typer.Option("--seed", help="Seed of everything that is drawn.")]
Device = Annotated[str, typer.Option("--device", help="cpu or cuda.")]
Threads = Annotated[int, typer.Option("--threads", metavar="N", help="CPU threads.")]
Out = Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Checkpoint folder; replaced.")]
Work = Annotated[
    Path | None, typer.Option("--work", metavar="FOLDER", help="Finished stages (default: the --out folder + .stages).")
]
Scale = Annotated[float, typer.Option("--scale", help="Multiply all step counts, e.g. 0.01 to try it out.")]
Model = Annotated[
    Path | None, typer.Option("--model", metavar="FOLDER", help="Checkpoint (default: the shipped policy).")
]


class Reward(StrEnum):
    """Rewards that `grpo` knows: keys of ``reference_grpo.REWARDS``."""

    DYNAMIC = "dynamic"
    GRADED_1 = "graded_1"
    BINARY = "binary"


@contextmanager
def _session(device: str, threads: int) -> Iterator[None]:
    """Torch on the device, and one line for each error."""
    with one_line_io_errors("interrupted; finished stages are kept and the same command goes on from there"):
        import torch

        torch.set_num_threads(max(1, threads))
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise ConfigError("--device cuda: torch sees no CUDA device; use --device cpu")
        yield


def _command(name: str, out: Path, seed: int, device: str, threads: int, scale: float) -> str:
    return (
        f"python -m speciarl.laptop {name} --out {out.name} --seed {seed}"
        f" --device {device} --threads {threads} --scale {scale:g}"
    )


def _stages_folder(out: Path, work: Path | None, scale: float) -> Path:
    if scale <= 0:
        raise ConfigError(f"--scale must be positive, got {scale}")
    return work or out.with_name(f"{out.name}.stages")


@app.command("policy")
def pretrain_policy(
    out: Out, work: Work = None, scale: Scale = 1.0, seed: Seed = 0, device: Device = "cpu", threads: Threads = 1
) -> None:
    """Pre-train the policy (about 25 min).

    A finished stage is kept: the same command goes on after it.
    """
    with _session(device, threads):
        from speciarl.laptop import checkpoint
        from speciarl.laptop.policy import pretrain
        from speciarl.laptop.policy.model import save_processor
        from speciarl.laptop.policy.report import table
        from speciarl.laptop.schedule import POLICY_STAGES

        stages = tuple(replace(s, steps=max(1, round(s.steps * scale))) for s in POLICY_STAGES)
        run = pretrain.PolicyRun(_stages_folder(out, work, scale), seed, device, stages)
        runner, world, seconds = pretrain.pretrain_policy(run, typer.echo)
        checkpoint.round_weights(runner.model)
        figures = _measure(runner, world, seed)
        record = {
            "command": _command("policy", out, seed, device, threads, scale),
            "seed": seed,
            "threads": threads,
            "seconds": seconds,
            "stages": {s.name: {"steps": s.steps, "pictures": s.pictures, "responses": s.responses} for s in stages},
            "parameters": sum(p.numel() for p in runner.model.parameters()),
            "versions": checkpoint.versions(),
            "figures": figures,
        }
        checkpoint.save(runner.model, lambda folder: save_processor(runner.tokenizer, folder), record, out)
        typer.echo(table(figures))
        typer.echo(f"checkpoint: {out}")


@app.command("judge")
def pretrain_judge(
    out: Out, work: Work = None, scale: Scale = 1.0, seed: Seed = 0, device: Device = "cpu", threads: Threads = 1
) -> None:
    """Pre-train the judge (about 30 min).

    It prints its agreement with the taxonomy on held-out pairs.
    """
    with _session(device, threads):
        from speciarl.laptop import checkpoint
        from speciarl.laptop.judge import pretrain
        from speciarl.laptop.schedule import JudgeSchedule

        schedule = JudgeSchedule().scaled(scale)
        run = pretrain.JudgeRun(_stages_folder(out, work, scale), seed, device, schedule)
        runner, source, seconds = pretrain.pretrain_judge(run, typer.echo)
        checkpoint.round_weights(runner.model)
        figures = pretrain.agreement(runner, pretrain.held_out_pairs(source, _HELD_OUT_DRAWS, seed))
        record = {
            "command": _command("judge", out, seed, device, threads, scale),
            "seed": seed,
            "threads": threads,
            "seconds": seconds,
            "schedule": asdict(schedule),
            "parameters": sum(p.numel() for p in runner.model.parameters()),
            "versions": checkpoint.versions(),
            "held_out": figures,
        }
        checkpoint.save(runner.model, runner.tokenizer.save_pretrained, record, out)
        typer.echo(json.dumps(figures, indent=1))
        typer.echo(f"checkpoint: {out}; agreement with the taxonomy on held-out pairs {figures['agreement']:.4f}")


def _measure(runner: Any, world: Any, seed: int) -> dict[str, Any]:
    """Figures on the test views of data set seed 0, which pre-training never saw."""
    from speciarl.laptop.policy.picture_bank import draw_views
    from speciarl.laptop.policy.report import outcomes, report, world_taxonomy

    pictures = draw_views(world.concepts, 1, 0, "test")[:, 0]
    return report(world, outcomes(runner, world, world_taxonomy(world), pictures, seed))


def _load_policy(model: Path | None, device: str) -> tuple[Any, Any]:
    from data_prep.emoji.concepts import load_concepts
    from speciarl.laptop.checkpoint import shipped
    from speciarl.laptop.policy.runner import load_policy
    from speciarl.laptop.world import World

    folder = model or shipped("policy")
    if not (folder / "config.json").is_file():
        raise ConfigError(f"{folder} holds no checkpoint (config.json is missing)")
    return load_policy(folder, device), World(load_concepts())


@app.command()
def evaluate(
    model: Model = None,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all figures there.")] = None,
    seed: Seed = 0,
    device: Device = "cpu",
    threads: Threads = 1,
) -> None:
    """Measure a policy on held-out views."""
    with _session(device, threads):
        from speciarl.laptop.checkpoint import write_json
        from speciarl.laptop.policy.report import table

        runner, world = _load_policy(model, device)
        figures = _measure(runner, world, seed)
        typer.echo(table(figures, figures))
        if json_file:
            write_json(json_file, figures)


@app.command()
def grpo(
    model: Model = None,
    reward: Annotated[Reward, typer.Option("--reward", help="What a group of rollouts earns.")] = Reward.DYNAMIC,
    steps: Annotated[int, typer.Option("--steps", help="Updates.")] = 50,
    pictures: Annotated[int, typer.Option("--pictures", help="Pictures per step.")] = 16,
    rollouts: Annotated[int, typer.Option("--rollouts", help="Rollouts per picture.")] = 8,
    lr: Annotated[float, typer.Option("--lr", help="Learning rate.")] = 2e-4,
    decay: Annotated[bool, typer.Option("--decay", help="Let the rate fall to 0 along a cosine.")] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write settings, history and figures there.")
    ] = None,
    seed: Seed = 0,
    device: Device = "cpu",
    threads: Threads = 1,
) -> None:
    """Train as the laptop run does, in plain PyTorch, without veRL."""
    with _session(device, threads):
        from speciarl.laptop.checkpoint import write_json
        from speciarl.laptop.policy.picture_bank import draw_views
        from speciarl.laptop.policy.report import table, world_taxonomy
        from speciarl.laptop.reference_grpo import REWARDS, GrpoSettings, train

        runner, world = _load_policy(model, device)
        settings = GrpoSettings(steps=steps, pictures=pictures, rollouts=rollouts, lr=lr, decay=decay, seed=seed)
        before = _measure(runner, world, seed)
        bank = draw_views(world.concepts, 8, 0, "train")
        history: list[dict[str, float]] = []

        def note(row: dict[str, float]) -> None:
            history.append(row)
            typer.echo("  ".join(f"{name} {value:.3f}" for name, value in row.items()))

        started = time.monotonic()
        train(runner, world, world_taxonomy(world), bank, REWARDS[reward], settings, note)
        seconds = round(time.monotonic() - started, 1)
        after = _measure(runner, world, seed)
        for name, figures in (("before", before), ("after", after)):
            typer.echo(f"{name}\n{table(figures)}")
        if json_file:
            content = {"reward": reward.value, "settings": asdict(settings), "seconds": seconds}
            write_json(json_file, {**content, "history": history, "before": before, "after": after})


def main() -> None:
    """Entry point of ``python -m speciarl.laptop``."""
    app(prog_name="python -m speciarl.laptop")
