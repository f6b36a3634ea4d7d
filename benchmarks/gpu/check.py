"""Runs the main recipe on one GPU with made-up models and tells what it took and whether all held.

    python benchmarks/gpu/check.py
    python benchmarks/gpu/check.py --policy 3b --judge vllm --out outputs/gpu-check
    python benchmarks/gpu/check.py --scale tiny     # the same path in a few minutes on a CPU

Nothing is downloaded: policies of 3B and 7B and a judge of 4B get random weights in their published sizes, pictures are
drawn. Every policy trains for three steps with the exact taxonomy judge, and for three with the vLLM judge, which is
killed in the last. A run that is done is not repeated by the same command. docs/gpu.md says how to read the report.
"""

import argparse
import os
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import card as cards
import memory_plan
import models
import pictures
import training_run
from findings import BAD, findings
from overrides import JUDGE, STEPS, Setting, judge_prompt, overrides
from rich.console import Console
from rich.markdown import Markdown
from shapes import JUDGES, POLICIES, Shape, adapter_parameters, parameters
from table import Column, page
from training_run import Run

from speciarl.hydra_support.recipe_source import recipe_directory

DEADLINE_S = 3600.0
PIXELS = {"card": 448, "tiny": 84}
"""Side of a picture: 256 visual tokens, and 9."""
ADAPTER_RANK = 64
"""The recipe's, for the plan."""


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", choices=("card", "tiny"), default="card", help="tiny: a minute's work for a CPU")
    parser.add_argument("--policy", nargs="+", choices=("3b", "7b"), default=["3b", "7b"], help="which to train")
    parser.add_argument("--judge", nargs="+", choices=("taxonomy", "vllm"), default=["taxonomy", "vllm"])
    parser.add_argument("--out", type=Path, default=Path("outputs/gpu-check"), help="folder of runs and report")
    parser.add_argument("--scratch", type=Path, help="folder of the made-up models; default: OUT/scratch")
    parser.add_argument("--deadline", type=float, default=DEADLINE_S, help="seconds that one run may take")
    parser.add_argument("overrides", nargs="*", help="further Hydra overrides of every run, after --")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the check; 0 when all that must hold does, or when there is no GPU to check."""
    options, console = parse(arguments), Console()
    tiny = options.scale == "tiny"
    card = None if tiny else cards.find()
    if not tiny and card is None:
        print(
            f"gpu-check: no GPU that torch can use here, so nothing is run; with one, made-up policies "
            f"({', '.join(options.policy)}) and a 4B judge would take {STEPS} steps of the main recipe each, "
            "and a dated table of figures would be printed"
        )
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C, so that no training is left behind
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    scratch = (options.scratch or out / "scratch").resolve()
    columns, notes = [], []
    for name in ["tiny"] if tiny else options.policy:
        shape = POLICIES[name]
        for judge in options.judge:
            title = f"{shape.name}, {judge} judge"
            try:
                finished = _finished(options, card, name, judge, out, scratch, console)
            except (memory_plan.TooSmall, models.NoRoom) as error:
                notes.append(f"{title}: left out, as {error}")
                console.print(notes[-1])
                continue
            rollouts = int(finished.plan["images"] * finished.plan["rollouts"])
            held = findings(finished, STEPS, rollouts, STEPS - 1 if judge == "vllm" else None)
            columns.append(Column(title, finished, held))
    if not tiny and not cards.has_flash_attention():
        notes.append("without flash-attention: torch's own attention (sdpa), sequences padded and not packed")
    where = f"{card.name}, {card.memory_gib:.0f} GiB, driver {card.driver}" if card else "no GPU, tiny models"
    text = page(where, cards.versions(), time.localtime(), columns, notes)
    report = out / f"report-{time.strftime('%Y-%m-%d-%H%M%S')}.md"
    report.write_text(text, encoding="utf-8")
    console.print(Markdown(text))
    console.print(f"report: {report}")
    return int(not columns or any(one.verdict == BAD for column in columns for one in column.findings))


def _finished(
    options: argparse.Namespace,
    card: cards.Card | None,
    name: str,
    judge: str,
    out: Path,
    scratch: Path,
    console: Console,
) -> Run:
    """One run, from its folder if it is done. Raises TooSmall or NoRoom in one line."""
    folder = out / f"{name}-{judge}"
    before = Run.load(folder)
    if before is not None:
        console.print(f"{folder}: done before; remove the folder to run it again")
        return before
    shutil.rmtree(folder, ignore_errors=True)  # of an interrupted attempt
    shape, sized = POLICIES[name], JUDGES["4b" if card else "tiny"]
    plan = _plan(card, shape, sized if judge == "vllm" else None)
    made = _make(scratch, name, shape, sized, judge, plan, console)
    packed = cards.has_flash_attention()
    setting = replace(made, on_cpu=card is None, packed=packed)
    words = [*overrides(setting, folder, recipe_directory()), *options.overrides]
    environment = dict(os.environ)
    if card is not None:
        environment["CUDA_VISIBLE_DEVICES"] = card.place  # the judge reserves no GPU, and is to share this one
    console.print(f"{folder}: training; log in {folder / 'train.log'}")
    used = partial(cards.used_gib, card.place) if card else float
    done = training_run.run(
        folder, words, environment, options.deadline, used, (JUDGE, STEPS - 1) if judge == "vllm" else None
    )
    done.plan = asdict(plan)
    if done.status == 0:
        done.keep(folder)
    else:
        print(f"its log ends:\n{training_run.tail(folder)}")  # unwrapped
    return done


def _plan(card: cards.Card | None, shape: Shape, judge: Shape | None) -> memory_plan.Plan:
    if card is None:
        return memory_plan.TINY
    counts = parameters(shape), adapter_parameters(shape, ADAPTER_RANK), parameters(judge) if judge else 0
    sizes = memory_plan.Weights(*counts, shape.vocabulary, shape.hidden, shape.layers)
    return memory_plan.plan(card.memory_gib, sizes)


def _make(
    scratch: Path, name: str, shape: Shape, sized: Shape, judge: str, plan: memory_plan.Plan, console: Console
) -> Setting:
    """Models and pictures, made unless they are there."""
    device = "cpu" if name == "tiny" else "cuda"
    data, policy, model = scratch / "pictures", scratch / f"policy-{name}", scratch / f"judge-{sized.layers}"
    pictures.write(data, plan.images * STEPS, PIXELS["tiny" if name == "tiny" else "card"])
    console.print(f"{scratch}: making {shape.name}" + (f" and {sized.name}" if judge == "vllm" else ""))
    # In a process of its own, which gives the card's memory back.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as maker:
        maker.submit(models.policy, policy, shape, plan.response_tokens, device).result()
        if judge == "vllm":
            maker.submit(models.judge, model, sized, judge_prompt(device == "cpu"), device).result()
    return Setting(policy, model if judge == "vllm" else None, data, plan)


if __name__ == "__main__":
    sys.exit(main())
