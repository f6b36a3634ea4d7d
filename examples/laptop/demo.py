"""The laptop demo: data, training and a before/after report, everything real, on two CPU cores.

python examples/laptop/demo.py --help
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from report import (
    comparison,
    contact_sheet,
    markdown_table,
    pick_examples,
    plot,
    read_records,
    terminal_table,
)
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

IN_DOMAIN = "emoji/animals"
POLL_S = 0.5
TAIL_LINES = 25


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit status."""
    options = parse(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C, so that no training is left behind
    console = Console()
    run = Path(options.out).resolve()
    run.mkdir(parents=True, exist_ok=True)
    console.rule("1/3  data")
    data = Path(options.data).resolve()
    if not (data / "test.parquet").is_file():
        subprocess.run([sys.executable, "-m", "data_prep", "emoji", "--out", str(data)], check=True)
    console.print(f"{data}: ready")
    console.rule("2/3  training")
    last = run / "validation" / f"{options.steps}.jsonl"
    if last.is_file():
        console.print(f"{run} holds a finished run; give --out another directory to train again")
    else:
        status = train(console, run, data, options.steps, options.seed, options.overrides)
        if status or not last.is_file():
            console.print(f"[red]training ended with status {status}; the log is {run / 'train.log'}, its end:")
            console.print("\n".join((run / "train.log").read_text(errors="replace").splitlines()[-TAIL_LINES:]))
            return status or 1
    console.rule("3/3  report")
    report(console, run, data, options.steps)
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="outputs/laptop", help="directory of the run; an interrupted one is resumed")
    parser.add_argument("--data", default="data/emoji", help="directory of the data, built when missing")
    parser.add_argument("--steps", type=int, default=110, help="training steps; fewer than 60 mislead (docs/laptop.md)")
    parser.add_argument("--seed", type=int, default=42, help="seed of data order and sampling")
    parser.add_argument("overrides", nargs="*", help="further Hydra overrides, e.g. recipe/verifier=taxonomy")
    return parser.parse_args(arguments)


def command(run: Path, data: Path, steps: int, seed: int, overrides: Sequence[str]) -> list[str]:
    """The training command, which is veRL's own."""
    return [
        sys.executable, "-m", "verl.trainer.main_ppo", "+recipe=[speciarl,laptop]",
        f"data.train_files={data}/train.parquet", f"data.val_files={data}/test.parquet",
        f"trainer.total_training_steps={steps}", f"trainer.test_freq={steps}",
        f"trainer.default_local_dir={run}", f"data.seed={seed}", f"actor_rollout_ref.rollout.seed={seed}",
        "trainer.logger=[console,file,tensorboard]", f"hydra.run.dir={run}/hydra", *overrides,
    ]  # fmt: skip


def train(console: Console, run: Path, data: Path, steps: int, seed: int, overrides: Sequence[str]) -> int:
    """Train in a child process with a progress bar; returns its exit status. Ctrl-C and SIGTERM end the child too."""
    words = command(run, data, steps, seed, overrides)
    console.print("python " + " ".join(words[1:]), style="dim", highlight=False, markup=False)
    console.print(f"log: {run / 'train.log'}   tensorboard --logdir {run / 'tensorboard'}")
    metrics = run / "metrics" / f"{len(list((run / 'metrics').glob('*.jsonl'))):03d}.jsonl"  # one per attempt
    metrics.parent.mkdir(exist_ok=True)
    environment = dict(os.environ, VERL_FILE_LOGGER_PATH=str(metrics), TENSORBOARD_DIR=str(run / "tensorboard"))
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )  # fmt: skip
    with (run / "train.log").open("ab") as log, Progress(*columns, console=console) as progress:
        child = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT, env=environment)
        bar = progress.add_task("starting", total=steps, note="(models and judge load, first validation runs)")
        started = time.monotonic()
        try:
            while child.poll() is None:
                time.sleep(POLL_S)
                step, note = latest(metrics)
                if step:
                    progress.update(bar, completed=step, description="training", note=note)
            return child.returncode
        finally:
            if child.poll() is None:
                child.terminate()
                child.wait()
            progress.update(bar, note=f"{time.monotonic() - started:.0f} s in all")


def latest(metrics: Path) -> tuple[int, str]:
    """The last finished training step and its category mix in a few words."""
    if not metrics.is_file():
        return 0, ""
    for line in reversed(metrics.read_text(encoding="utf-8").splitlines()):
        if not line.endswith("}"):
            continue  # being written
        row = json.loads(line)
        if "speciarl/hm" in row["data"]:
            numbers = row["data"]
            shown = ("wrong", "generic", "less_specific", "specific")
            mix = "  ".join(f"{name.replace('_', ' ')} {numbers[f'speciarl/rate/{name}']:.0%}" for name in shown)
            return int(row["step"]), f"{mix}  HM {numbers['speciarl/hm']:.2f}"
    return 0, ""


def report(console: Console, run: Path, data: Path, steps: int) -> None:
    """Table, plot and images."""
    before = read_records(run / "validation" / "0.jsonl")
    after = read_records(run / "validation" / f"{steps}.jsonl")
    cells = comparison(before, after, IN_DOMAIN)
    console.print(terminal_table(cells))
    (run / "report.md").write_text(markdown_table(cells), encoding="utf-8")
    plot(sorted((run / "metrics").glob("*.jsonl")), before, after, IN_DOMAIN, run / "report.png")
    examples = pick_examples(before, after, IN_DOMAIN)
    for old, new in examples:
        console.print(f"  {old.truth:28s} {old.answer:26s} -> {new.answer:26s} [dim]{new.stratum}, {new.source}")
    if examples:
        contact_sheet(examples, data / "test.parquet", run / "examples.png")
    console.print(f"\nplot: {run / 'report.png'}\nexamples: {run / 'examples.png'}\ntable: {run / 'report.md'}")
    console.print(
        "\nNext:\n"
        "  1. swap the judge for the exact one:\n"
        "     python examples/laptop/demo.py --out outputs/exact recipe/verifier=taxonomy\n"
        "  2. read what a GPU run needs:         docs/gpu.md\n"
        "  3. use your own images:               docs/data.md"
    )


if __name__ == "__main__":
    raise SystemExit(main())
