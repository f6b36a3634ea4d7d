r"""What the verifier costs a training step, in one run whose verdicts come later in some steps than in others.

    python benchmarks/training/overlap.py --data data/emoji --plan free stock 0.1 1 5 20 --cycles 5
    python benchmarks/training/overlap.py --data data/emoji --plan free 0.1 1 5 --hold 6 --mode colocate_async

Everything is real (veRL, Ray, FSDP, vLLM) but the judge, which is the data set's hierarchy: its verdict takes some
microseconds, and is held back for as long as the plan says, for every rollout anew, as by a judge with enough replicas
and an empty cache. ``stock`` steps run on veRL's own agent-loop worker with a constant reward. Conditions alternate
within each cycle, so that whatever else the machine does hits all of them; the first cycle warms up and is left out.
Ratios are taken within a cycle; their median and range are printed.

``in_process`` steps ask a verifier in the worker's own process, all others the run's service, as every run does: that
measures the way to the service. ``+speciarl.verifier.cache_size=0`` makes every rollout take it, where a real run
remembers the pairs it knows:

    python benchmarks/training/overlap.py --data data/emoji --plan free in_process --cycles 20 -- \
        +speciarl.verifier.cache_size=0

With ``--hold`` above 1, as asynchronous modes need, a condition is held for that many steps, the first two of which
still see the one before and are left out.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from plan import FREE, STOCK, condition
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
SETTLING = 2
"""Steps after a change of condition that are left out when conditions are held."""


def main() -> None:
    options = parse()
    steps = options.cycles * options.hold * len(options.plan)
    rows = train(options, steps)
    by_cycle: dict[int, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for step, row in rows.items():
        cycle, place = divmod(step - 1, options.hold * len(options.plan))
        settled = options.hold == 1 or place % options.hold >= SETTLING
        if settled and (cycle > 0 or options.cycles == 1):
            by_cycle[cycle][condition(options.plan, options.hold, step)].append(row)
    report(options, by_cycle)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of `python -m data_prep emoji`")
    parser.add_argument("--plan", nargs="+", default=[FREE, "0.1", "1", "5", "20"])
    parser.add_argument("--hold", type=int, default=1, help="steps for which a condition is held")
    parser.add_argument("--cycles", type=int, default=5)
    parser.add_argument("--mode", default="sync", help="an option of recipe/mode")
    parser.add_argument("--out", type=Path, help="keep the run's folder here")
    parser.add_argument("overrides", nargs="*", help="more Hydra overrides, after --")
    options = parser.parse_args()
    if FREE not in options.plan:
        parser.error(f"the plan needs {FREE}: every ratio is to it")
    return options


def train(options: argparse.Namespace, steps: int) -> dict[int, dict[str, Any]]:
    """The logged metrics of the run, by step."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = (options.out or Path(scratch)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        data, metrics = options.data.resolve(), folder / "metrics.jsonl"
        command = [
            sys.executable, "-m", "verl.trainer.main_ppo", "+recipe=[speciarl,laptop]", f"recipe/mode={options.mode}",
            "recipe/verifier=taxonomy", f"speciarl.verifier.taxonomy={data}/taxonomy.json",
            f"data.train_files={data}/train.parquet", f"data.val_files={data}/test.parquet",
            f"trainer.default_local_dir={folder}", f"hydra.run.dir={folder}/hydra", "trainer.logger=[console,file]",
            f"trainer.total_training_steps={steps}", "trainer.val_before_train=false", "trainer.test_freq=-1",
            "trainer.save_freq=-1", "speciarl.training.samples_every=0",
            "actor_rollout_ref.actor.optim.lr=0", # the work must not drift from step to step
            "actor_rollout_ref.rollout.agent.agent_loop_manager_class=planned_worker.PlannedManager",
            f"reward.custom_reward_function.path={HERE}/planned_worker.py",
            "reward.custom_reward_function.name=constant_reward", f"reward.num_workers={int(STOCK in options.plan)}",
            f"+benchmark.plan=[{','.join(options.plan)}]", f"+benchmark.hold={options.hold}",
            f"+benchmark.judge={{name:taxonomy,kind:taxonomy,taxonomy:'{data}/taxonomy.json'}}", *options.overrides,
        ]  # fmt: skip
        path = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
        environment = {**os.environ, "PYTHONPATH": path, "VERL_FILE_LOGGER_PATH": str(metrics)}
        log = folder / "train.log"
        with log.open("wb") as output:
            done = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, env=environment, cwd=folder)
        if done.returncode:
            sys.exit(f"the run failed:\n{log.read_text(errors='replace')[-4000:]}")
        return {row["step"]: row["data"] for row in map(json.loads, metrics.read_text().splitlines())}


def report(options: argparse.Namespace, by_cycle: dict[int, dict[str, list[dict[str, Any]]]]) -> None:
    table = Table(title=f"{options.mode}, {len(by_cycle)} cycles")
    for column in ("verdict after", "step s", "gen s", "step / free", "range", "gen / free", "waited s", "hidden"):
        table.add_column(column, justify="right")
    for name in dict.fromkeys(options.plan):
        rows = [row for cycle in by_cycle.values() for row in cycle[name]]
        ratios = {key: [mean(c[name], key) / mean(c[FREE], key) for c in by_cycle.values()] for key in (STEP, GEN)}
        hidden = [row[HIDDEN] for row in rows if row.get(HIDDEN) is not None and row[JUDGING] > 0.01]
        table.add_row(
            f"{name} s" if name[0].isdigit() else name,
            f"{statistics.median(row[STEP] for row in rows):.2f}",
            f"{statistics.median(row[GEN] for row in rows):.2f}",
            f"{statistics.median(ratios[STEP]):.3f}",
            f"{min(ratios[STEP]):.3f}-{max(ratios[STEP]):.3f}",
            f"{statistics.median(ratios[GEN]):.3f}",
            f"{statistics.median(row[WAITED] for row in rows):.2f}",
            f"{statistics.median(hidden):.0%}" if hidden else "",
        )
    Console(width=110).print(table)


STEP, GEN = "timing_s/step", "timing_s/gen"
WAITED, JUDGING = "speciarl/verifier/wait_s", "speciarl/verifier/judging_s"
HIDDEN = "speciarl/verifier/hidden_share"


def mean(rows: list[dict[str, Any]], key: str) -> float:
    return statistics.fmean(row[key] for row in rows)


if __name__ == "__main__":
    main()
