"""One verifier for a run, against one in each agent-loop worker as it was before.

    python benchmarks/verifier/one_per_run.py --prompts 256 --workers 8 --steps 6

A step is `--prompts` x `--rollouts` stub rollouts, spread evenly over `--generation` seconds and over the workers, each
of which is a process. A rollout that ends asks its worker's verifier: either one in the worker's own process, all on
one SQLite store, or the client of a service in a process of its own. The judge is the stand-in of `judge_stub.py` with
the timing of an 8B model. Labels repeat between prompts, as in any data set, and are new in each step: every distinct
pair has to be judged once.

Arrangements alternate step by step in one run; the first step of each warms up and is left out. Prints the time of a
step, what of it is left after the last rollout, processor time and memory (proportional set size), and how often the
judge was asked about each distinct pair; ratios are to the arrangement with a verifier in each worker.
"""

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import random
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
from judge_stub import running
from rich.console import Console
from rich.table import Table
from service_overhead import service

from speciarl.verdict import Pair, Verdict
from speciarl.verifier_server import build, parse_config

OWN, RUN = "one in each worker", "one for the run"
ANSWERS = 6
"""Different answers that the rollouts of one prompt may give; the first are far likelier."""
DEADLINE_S = 300.0

Rollouts = list[tuple[float, Pair]]
"""When each ends, in seconds from the start of the step, and what is to be judged."""


@dataclass(frozen=True)
class Done:
    """What a worker, or all of them, took for a step."""

    last_verdict_s: float
    """From the start of the step until the last verdict."""
    processor_s: float


class Workers:
    """Processes with a verifier each."""

    def __init__(self, config: dict[str, Any], count: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._ends: list[Connection] = []
        self.processes = []
        for _ in range(count):
            here, there = context.Pipe()
            process = context.Process(target=work, args=(there, config), daemon=True)
            process.start()
            self._ends.append(here)
            self.processes.append(process)
        for end in self._ends:
            self._receive(end)

    def step(self, shares: list[Rollouts]) -> Done:
        """Let every worker take its share; the last verdict of all, and the sum of their processor time."""
        begins_at = time.time() + 0.2
        for end, share in zip(self._ends, shares, strict=True):
            end.send((begins_at, share))
        done = [self._receive(end) for end in self._ends]
        return Done(max(one.last_verdict_s for one in done), sum(one.processor_s for one in done))

    def stop(self) -> None:
        """Let them end."""
        for end in self._ends:
            end.send(None)
        for process in self.processes:
            process.join(30)

    def _receive(self, end: Connection) -> Any:
        if not end.poll(DEADLINE_S):
            raise TimeoutError(f"a worker gave no reply within {DEADLINE_S:g} s")
        return end.recv()


def work(end: Connection, config: dict[str, Any]) -> None:
    """One worker: steps come through the pipe, None ends it."""
    asyncio.run(_work(end, config))


async def _work(end: Connection, config: dict[str, Any]) -> None:
    verifier = build(parse_config(config))
    await verifier.start()
    end.send(None)
    while (told := await asyncio.to_thread(end.recv)) is not None:
        begins_at, rollouts = told
        used = time.process_time()

        async def rollout(ends_at: float, pair: Pair, begins_at: float = begins_at) -> None:
            await asyncio.sleep(begins_at + ends_at - time.time())
            judgement = await verifier.verify(pair)
            if not isinstance(judgement, Verdict):
                raise RuntimeError(f"no verdict: {judgement}")

        await asyncio.gather(*(rollout(*one) for one in rollouts))
        end.send(Done(time.time() - begins_at, time.process_time() - used))
    await verifier.aclose()


def step_of(options: argparse.Namespace, name: str, chance: random.Random) -> tuple[list[Rollouts], int]:
    """The workers' shares of a step's rollouts, and the number of distinct pairs."""
    shares: list[Rollouts] = [[] for _ in range(options.workers)]
    pairs = set()
    for prompt in range(options.prompts):
        label = chance.randrange(options.labels)
        for _ in range(options.rollouts):
            answer = min(int(chance.expovariate(1.0)), ANSWERS - 1)
            pair = Pair(f"{name} label {label}", f"{name} answer {label} {answer}")
            pairs.add(pair)
            shares[prompt % options.workers].append((chance.uniform(0.0, options.generation), pair))
    return shares, len(pairs)


def asked(stub: str) -> int:
    """Pairs about which the judge was asked since the last call, each as often as it was."""
    with urllib.request.urlopen(f"{stub}/counts", timeout=30) as reply:
        return int(json.load(reply)["conversations"])


def memory_mb(processes: list[Any]) -> float:
    """Proportional set size of some processes, added up."""
    return sum(psutil.Process(one.pid).memory_full_info().pss for one in processes) / 2**20


@contextlib.contextmanager
def arranged(
    options: argparse.Namespace, stub: str, folder: Path
) -> Iterator[tuple[dict[str, Workers], psutil.Process]]:
    """Workers of both arrangements, and the process of the service."""
    judge = {"model": "stub", "prompt": "base", "probe": False, "endpoints": [stub], "startup_deadline_s": 60}
    own = judge | {"name": "stub", "store": {"path": str(folder / "own.sqlite")}}
    children = set(psutil.Process().children())
    with service(stub, folder, store=str(folder / "run.sqlite")) as url:
        (serving,) = set(psutil.Process().children()) - children
        thin = {"name": "stub", "service_url": url, "startup_deadline_s": 60}
        workers = {OWN: Workers(own, options.workers), RUN: Workers(thin, options.workers)}
        yield workers, serving
        for some in workers.values():
            some.stop()


def main() -> None:
    options = parse()
    chance = random.Random(options.seed)
    taken: dict[str, list[Done]] = {OWN: [], RUN: []}
    repeats: dict[str, list[float]] = {OWN: [], RUN: []}
    serving_s: list[float] = []
    load = os.getloadavg()[0]
    with (
        running("8b") as stub,
        tempfile.TemporaryDirectory() as scratch,
        arranged(options, stub, Path(scratch)) as (workers, serving),
    ):
        for step in range(options.steps + 1):
            for name, some in workers.items():
                shares, distinct = step_of(options, f"{step} {name}", chance)
                asked(stub)
                used_before = sum(serving.cpu_times()[:2])
                done = some.step(shares)
                if step == 0:
                    continue
                taken[name].append(done)
                repeats[name].append(asked(stub) / distinct)
                if name == RUN:
                    serving_s.append(sum(serving.cpu_times()[:2]) - used_before)
        memory = {name: memory_mb(some.processes) for name, some in workers.items()}
        service_mb = memory_mb([serving])
    report(options, load, taken, repeats, memory, statistics.median(serving_s), service_mb)


def report(
    options: argparse.Namespace,
    load: float,
    taken: dict[str, list[Done]],
    repeats: dict[str, list[float]],
    memory: dict[str, float],
    serving_s: float,
    service_mb: float,
) -> None:
    """The table."""
    size = f"{options.prompts} x {options.rollouts} rollouts in {options.generation:g} s, {options.workers} workers"
    table = Table(
        title=f"{size}; medians of {options.steps} steps; load average {load:.1f} before", title_justify="left"
    )
    for column in (
        "verifier",
        "step s",
        "ratio",
        "range",
        "after the last rollout s",
        "processor s: workers",
        "service",
    ):
        table.add_column(column, justify="right")
    for column in ("MB: workers", "service", "asked per pair"):
        table.add_column(column, justify="right")
    for name, steps in taken.items():
        ratios = [one.last_verdict_s / own.last_verdict_s for one, own in zip(steps, taken[OWN], strict=True)]
        step_s = statistics.median(one.last_verdict_s for one in steps)
        table.add_row(
            name, f"{step_s:.2f}", f"{statistics.median(ratios):.3f}", f"{min(ratios):.3f}-{max(ratios):.3f}",
            f"{step_s - options.generation:.2f}", f"{statistics.median(one.processor_s for one in steps):.2f}",
            f"{serving_s:.2f}" if name == RUN else "", f"{memory[name]:.0f}",
            f"{service_mb:.0f}" if name == RUN else "", f"{statistics.median(repeats[name]):.2f}",
        )  # fmt: skip
    Console(width=150).print(table)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=256, help="prompts of a step")
    parser.add_argument("--rollouts", type=int, default=10, help="rollouts of a prompt")
    parser.add_argument("--labels", type=int, default=120, help="ground truths among which the prompts' are drawn")
    parser.add_argument("--workers", type=int, default=8, help="agent-loop workers")
    parser.add_argument("--generation", type=float, default=10.0, help="seconds in which the rollouts end")
    parser.add_argument("--steps", type=int, default=6, help="steps of each arrangement")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
