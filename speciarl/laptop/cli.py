"""``python -m speciarl.laptop``: pre-train, measure and train the miniature models."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from speciarl.errors import DataPrepError
from speciarl.utils.cli_errors import TROUBLE, USAGE_ERROR, say

_HELD_OUT_DRAWS = 60_000


class LaptopError(ValueError):
    """Bad input; the message is one line."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m speciarl.laptop",
        description="The miniature world: build and pre-train the tiny policy and judge (docs/laptop_models.md).",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    common.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    common.add_argument("--threads", type=int, default=1, metavar="N", help="CPU threads (default: %(default)s)")

    training = argparse.ArgumentParser(add_help=False)
    training.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="checkpoint folder; replaced")
    training.add_argument("--work", type=Path, metavar="FOLDER", help="finished stages (default: FOLDER.stages)")
    training.add_argument(
        "--scale", type=float, default=1.0, help="multiply all step counts, e.g. 0.01 to try it out (default: 1)"
    )
    policy = commands.add_parser("policy", parents=[common, training], help="pre-train the policy (about 25 min)")
    policy.set_defaults(run=_policy)
    judge = commands.add_parser("judge", parents=[common, training], help="pre-train the judge (about 30 min)")
    judge.set_defaults(run=_judge)

    evaluate = commands.add_parser("evaluate", parents=[common], help="measure a policy on held-out views")
    evaluate.add_argument("--model", type=Path, metavar="FOLDER", help="checkpoint (default: the shipped policy)")
    evaluate.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    evaluate.set_defaults(run=_evaluate)

    grpo = commands.add_parser("grpo", parents=[common], help="the laptop run in plain PyTorch, without veRL")
    grpo.add_argument("--model", type=Path, metavar="FOLDER", help="checkpoint (default: the shipped policy)")
    grpo.add_argument("--reward", choices=("dynamic", "graded_1", "binary"), default="dynamic")
    grpo.add_argument("--steps", type=int, default=50, help="default: %(default)s")
    grpo.add_argument("--pictures", type=int, default=16, help="pictures per step (default: %(default)s)")
    grpo.add_argument("--rollouts", type=int, default=8, help="rollouts per picture (default: %(default)s)")
    grpo.add_argument("--lr", type=float, default=2e-4, help="default: %(default)s")
    grpo.add_argument("--decay", action="store_true", help="let the rate fall to 0 along a cosine")
    grpo.add_argument("--json", type=Path, metavar="FILE", help="write settings, history and figures there")
    grpo.set_defaults(run=_grpo)
    return parser


def _say(line: str) -> None:
    print(line, flush=True)


def _command(arguments: argparse.Namespace) -> str:
    return (
        f"python -m speciarl.laptop {arguments.command} --out {arguments.out.name} --seed {arguments.seed}"
        f" --device {arguments.device} --threads {arguments.threads} --scale {arguments.scale:g}"
    )


def _work(arguments: argparse.Namespace) -> Path:
    if arguments.scale <= 0:
        raise LaptopError(f"--scale must be positive, got {arguments.scale}")
    folder: Path = arguments.work or arguments.out.with_name(f"{arguments.out.name}.stages")
    return folder


def _policy(arguments: argparse.Namespace) -> None:
    from speciarl.laptop import checkpoint
    from speciarl.laptop.policy.model import save_processor
    from speciarl.laptop.policy.pretrain import PolicyRun, pretrain_policy
    from speciarl.laptop.policy.report import table
    from speciarl.laptop.schedule import POLICY_STAGES

    stages = tuple(replace(s, steps=max(1, round(s.steps * arguments.scale))) for s in POLICY_STAGES)
    run = PolicyRun(_work(arguments), arguments.seed, arguments.device, stages)
    runner, world, seconds = pretrain_policy(run, _say)
    checkpoint.round_weights(runner.model)
    figures = _measure(runner, world, arguments.seed)
    record = {
        "command": _command(arguments),
        "seed": arguments.seed,
        "threads": arguments.threads,
        "seconds": seconds,
        "stages": {s.name: {"steps": s.steps, "pictures": s.pictures, "responses": s.responses} for s in stages},
        "parameters": sum(p.numel() for p in runner.model.parameters()),
        "versions": checkpoint.versions(),
        "figures": figures,
    }
    checkpoint.save(runner.model, lambda folder: save_processor(runner.tokenizer, folder), record, arguments.out)
    _say(table(figures))
    _say(f"checkpoint: {arguments.out}")


def _judge(arguments: argparse.Namespace) -> None:
    from speciarl.laptop import checkpoint
    from speciarl.laptop.judge.pretrain import JudgeRun, agreement, held_out_pairs, pretrain_judge
    from speciarl.laptop.schedule import JudgeSchedule

    schedule = JudgeSchedule().scaled(arguments.scale)
    run = JudgeRun(_work(arguments), arguments.seed, arguments.device, schedule)
    runner, source, seconds = pretrain_judge(run, _say)
    checkpoint.round_weights(runner.model)
    figures = agreement(runner, held_out_pairs(source, _HELD_OUT_DRAWS, arguments.seed))
    record = {
        "command": _command(arguments),
        "seed": arguments.seed,
        "threads": arguments.threads,
        "seconds": seconds,
        "schedule": asdict(schedule),
        "parameters": sum(p.numel() for p in runner.model.parameters()),
        "versions": checkpoint.versions(),
        "held_out": figures,
    }
    checkpoint.save(runner.model, runner.tokenizer.save_pretrained, record, arguments.out)
    _say(json.dumps(figures, indent=1))
    _say(f"checkpoint: {arguments.out}; agreement with the taxonomy on held-out pairs {figures['agreement']:.4f}")


def _measure(runner: Any, world: Any, seed: int) -> dict[str, Any]:
    """Figures on the test views of data set seed 0, which pre-training never saw."""
    from speciarl.laptop.policy.picture_bank import draw_views
    from speciarl.laptop.policy.report import outcomes, report, world_taxonomy

    pictures = draw_views(world.concepts, 1, 0, "test")[:, 0]
    return report(world, outcomes(runner, world, world_taxonomy(world), pictures, seed))


def _load_policy(arguments: argparse.Namespace) -> tuple[Any, Any]:
    from data_prep.emoji.concepts import load_concepts
    from speciarl.laptop.checkpoint import shipped
    from speciarl.laptop.policy.runner import load_policy
    from speciarl.laptop.world import World

    folder = arguments.model or shipped("policy")
    if not (folder / "config.json").is_file():
        raise LaptopError(f"{folder} holds no checkpoint (config.json is missing)")
    return load_policy(folder, arguments.device), World(load_concepts())


def _evaluate(arguments: argparse.Namespace) -> None:
    from speciarl.laptop.checkpoint import write_json
    from speciarl.laptop.policy.report import table

    runner, world = _load_policy(arguments)
    figures = _measure(runner, world, arguments.seed)
    _say(table(figures, figures))
    if arguments.json:
        write_json(arguments.json, figures)


def _grpo(arguments: argparse.Namespace) -> None:
    from speciarl.laptop.checkpoint import write_json
    from speciarl.laptop.policy.picture_bank import draw_views
    from speciarl.laptop.policy.report import table, world_taxonomy
    from speciarl.laptop.reference_grpo import REWARDS, GrpoSettings, train

    runner, world = _load_policy(arguments)
    settings = GrpoSettings(
        steps=arguments.steps,
        pictures=arguments.pictures,
        rollouts=arguments.rollouts,
        lr=arguments.lr,
        decay=arguments.decay,
        seed=arguments.seed,
    )
    before = _measure(runner, world, arguments.seed)
    bank = draw_views(world.concepts, 8, 0, "train")
    history: list[dict[str, float]] = []

    def note(row: dict[str, float]) -> None:
        history.append(row)
        _say("  ".join(f"{name} {value:.3f}" for name, value in row.items()))

    started = time.monotonic()
    train(runner, world, world_taxonomy(world), bank, REWARDS[arguments.reward], settings, note)
    seconds = round(time.monotonic() - started, 1)
    after = _measure(runner, world, arguments.seed)
    for name, figures in (("before", before), ("after", after)):
        _say(f"{name}\n{table(figures)}")
    if arguments.json:
        content = {"reward": arguments.reward, "settings": asdict(settings), "seconds": seconds}
        write_json(arguments.json, {**content, "history": history, "before": before, "after": after})


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 done, 1 failed or interrupted, 2 bad input."""
    import torch

    parsed = _parser().parse_args(arguments)
    torch.set_num_threads(max(1, parsed.threads))
    try:
        if parsed.device.startswith("cuda") and not torch.cuda.is_available():
            raise LaptopError("--device cuda: torch sees no CUDA device; use --device cpu")
        parsed.run(parsed)
    except (LaptopError, DataPrepError) as error:
        say(error)
        return USAGE_ERROR
    except OSError as error:
        say(error)
        return TROUBLE
    except KeyboardInterrupt:
        say("interrupted; finished stages are kept and the same command goes on from there")
        return TROUBLE
    return 0
