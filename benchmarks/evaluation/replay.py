"""Replay of a million rollouts: seconds of each part, and how often a plain loop over the groups takes as long.

    python benchmarks/evaluation/replay.py

Writes a log of such a size, both as the trainer dumps it (JSON lines, 0.9 kB each) and as an evaluation keeps it
(parquet), with categories as a policy gives them: mostly generic at first, and specific for one image in four. Every
part is timed in this process, wall clock and processor time: on a busy machine the second one tells more.
"""

import argparse
import json
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from rich.console import Console
from rich.table import Table

from speciarl import reward
from speciarl.category import Category
from speciarl.evaluation import tables
from speciarl.evaluation.replay import log, rewards
from speciarl.evaluation.replay.check import against_log
from speciarl.evaluation.replay.replay import replay
from speciarl.evaluation.replay.rollouts import Rollouts
from speciarl.reward.barrier import score_group
from speciarl.reward.noise import Noise
from speciarl.verdict import Source, Verdict

WEIGHTS = ((10, 5, 55, 20, 10, 0), (30, 5, 30, 20, 14, 1), (5, 2, 10, 30, 50, 3), (60, 10, 20, 5, 5, 0))
"""How often each category is answered, for four kinds of image."""
STEPS = 50
SETTINGS = json.dumps({"name": "dynamic", "params": {}, "noise": {"probability": 0.0, "seed": 42}, "quorum": 2})
REWARDS = "dynamic,dynamic(support=2),graded_1,binary"

Returned = TypeVar("Returned")


def groups(count: int, n: int) -> list[list[Category]]:
    """Categories of all groups."""
    chance = random.Random(0)
    return [chance.choices(list(Category), WEIGHTS[number % len(WEIGHTS)], k=n) for number in range(count)]


def write_dump(folder: Path, drawn: list[list[Category]]) -> None:
    """The log as the trainer dumps it."""
    folder.mkdir()
    settings = json.dumps(json.loads(SETTINGS) | {"rollouts": len(drawn[0])})
    earn, per_step = reward.load("dynamic"), -(-len(drawn) // STEPS)
    for step in range(STEPS):
        with (folder / f"{step + 1}.jsonl").open("w") as file:
            for number, group in enumerate(drawn[step * per_step : (step + 1) * per_step]):
                earned = earn([Verdict(category, None, Source.LIVE) for category in group])
                for session, (category, value) in enumerate(zip(group, earned, strict=True)):
                    row = {
                        "input": "user\nName what you see as precisely as you can.\nassistant\n" * 3,
                        "output": "<think> clear exact</think><answer> mouse</answer>", "gts": "mouse", "score": value,
                        "step": step + 1, "uid": f"0{step:03d}{number:06d}-f930-4396-b319-839e9dffc676_{session}_0",
                        "category": category.name.lower(), "seen_category": category.name.lower(),
                        "group_reward": value, "overlong_penalty": 0.0, "answer": "mouse", "verdict_source": "live",
                        "margin": None, "probabilities": None, "reference": "specific", "data_source": "emoji/animals",
                        "sample_id": f"train/{number}", "stratum": "known", "sampled_step": step + 1,
                        "advantage": -0.5, "response_tokens": 8, "reward_settings": settings,
                    }  # fmt: skip
                    file.write(json.dumps(row) + "\n")


def write_evaluation(folder: Path, drawn: list[list[Category]]) -> None:
    """The log as an evaluation keeps it."""
    named = [(f"test/{number:07d}", group) for number, group in enumerate(drawn)]
    verdicts = (
        {"sample_id": name, "index": index, "outcome": int(category)}
        for name, group in named
        for index, category in enumerate(group)
    )
    texts = (
        {"sample_id": name, "index": index, "ground_truth": "mouse", "answer": "mouse"}
        for name, group in named
        for index in range(len(group))
    )
    tables.write(folder / "verdicts" / "judge" / "model" / "set" / "as_built.parquet", tables.VERDICTS, verdicts, {})
    tables.write(folder / "predictions" / "model" / "set" / "as_built.parquet", tables.PREDICTIONS, texts, {})


def plain(found: Rollouts) -> dict[str, float]:
    """One reward as a loop over the groups has it, without anything kept from group to group."""
    earn = reward.load("dynamic")
    members: dict[int, list[Any]] = defaultdict(list)
    for group, outcome in zip(found.group.tolist(), found.outcome.tolist(), strict=True):
        members[group].append(Verdict(Category(outcome), None, Source.LIVE))
    total, signal, absolute = 0.0, 0, 0.0
    for group in members.values():
        outcome = score_group(earn, group)
        values = np.array([value for value in outcome.rewards if value is not None])
        total += float(values.sum())
        signal += outcome.has_signal
        absolute += float(np.abs((values - values.mean()) / (values.std(ddof=1) + 1e-6)).sum())
    return {"mean": total / len(found), "signal": signal / len(members), "mean_abs": absolute / len(found)}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rollouts", type=int, default=1_000_000)
    parser.add_argument("--n", type=int, default=8, help="rollouts of a group")
    options = parser.parse_args()
    table = Table("part", "seconds", "of the processor")
    took: dict[str, float] = {}

    def timed(part: str, work: Callable[[], Returned]) -> Returned:
        start, used = time.perf_counter(), time.process_time()
        result = work()
        took[part] = time.process_time() - used
        table.add_row(part, f"{time.perf_counter() - start:.2f}", f"{took[part]:.2f}")
        return result

    with tempfile.TemporaryDirectory() as folder:
        dump, evaluation = Path(folder, "rollouts"), Path(folder, "evaluation")
        drawn = groups(options.rollouts // options.n, options.n)
        write_dump(dump, drawn)
        write_evaluation(evaluation, drawn)
        found, _ = timed("read the trainer's dump", lambda: log.read(dump))
        timed("compare with the logged rewards", lambda: against_log(found))
        one = rewards.parse("dynamic")
        summary = timed("one reward", lambda: replay(found, one, log="")).rewards["dynamic"]
        timed("one reward, other noise", lambda: replay(found, one, log="", noise=Noise(probability=0.1)))
        timed(REWARDS, lambda: replay(found, rewards.parse(REWARDS), log=""))
        timed("one reward, half of n", lambda: replay(found, one, log="", n=options.n // 2))
        timed("read an evaluation", lambda: log.read(evaluation))
        loop = timed("one reward in a plain loop", lambda: plain(found))
    assert summary.grpo is not None
    assert np.allclose(
        [loop["mean"], loop["signal"], loop["mean_abs"]], [summary.mean, summary.signal, summary.grpo.mean_abs]
    )
    console = Console()
    console.print(table)
    ratio = took["one reward in a plain loop"] / took["one reward"]
    whole = sum(took[part] for part in ("read the trainer's dump", "compare with the logged rewards", "one reward"))
    console.print(f"{len(found)} rollouts; the plain loop takes {ratio:.1f} times as long (processor)")
    console.print(f"read, compare and one reward: {whole:.2f} s of the processor")


if __name__ == "__main__":
    main()
