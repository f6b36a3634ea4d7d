"""Pre-training of the miniature judge from scratch, measured on pairs that it never saw."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from data_prep.emoji.concepts import load_concepts
from speciarl.category import LABELS, Category
from speciarl.laptop.judge.model import PROMPT_NAME, build_judge, build_judge_tokenizer
from speciarl.laptop.judge.pairs import GradedPair, PairSource
from speciarl.laptop.judge.runner import JudgeRunner
from speciarl.laptop.judge.tree_probe import TreeMap, TreeProbe
from speciarl.laptop.schedule import JudgeSchedule
from speciarl.utils.atomic_files import replacing
from speciarl.verdict import Pair
from speciarl.verifier_server.judge.prompt import load_prompt

_REPORT_EVERY = 100
_STEPS_PER_POOL = 8
_CHECKPOINT = "judge.pt"

Report = Callable[[str], object]


@dataclass(frozen=True)
class JudgeRun:
    """Settings of a pre-training run. ``work`` receives the finished weights."""

    work: Path
    seed: int = 0
    device: str = "cpu"
    schedule: JudgeSchedule = field(default_factory=JudgeSchedule)


def pretrain_judge(run: JudgeRun, report: Report) -> tuple[JudgeRunner, PairSource, float]:
    """The pre-trained judge, the source of its pairs and the seconds it took (in this or an earlier call)."""
    source = PairSource(load_concepts())
    torch.manual_seed(run.seed)
    tokenizer = build_judge_tokenizer(source.words)
    runner = JudgeRunner(build_judge(tokenizer, run.device), tokenizer, load_prompt(PROMPT_NAME))
    run.work.mkdir(parents=True, exist_ok=True)
    file = run.work / _CHECKPOINT
    if file.is_file():
        saved = torch.load(file, map_location=run.device, weights_only=True)
        runner.model.load_state_dict(saved["weights"])
        report(f"judge: taken from {file}")
        return runner, source, float(saved["seconds"])
    started = time.monotonic()
    _train(runner, source, run, report)
    seconds = round(time.monotonic() - started, 1)
    with replacing(file) as draft:
        torch.save({"weights": runner.model.state_dict(), "seconds": seconds}, draft)
    return runner, source, seconds


def _train(runner: JudgeRunner, source: PairSource, run: JudgeRun, report: Report) -> None:
    schedule = run.schedule
    rng = random.Random(f"{run.seed}/judge")
    tree = TreeMap(source.concepts)
    probe = TreeProbe(runner.model.config.hidden_size, tree).to(run.device)
    parameters = [*runner.model.parameters(), *probe.parameters()]
    # Gains and biases are exempt: strong decay would switch the normalisation off.
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": schedule.weight_decay},
        {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups)  # the schedule sets the rate of each step
    runner.model.train()
    encoded: dict[Pair, list[int]] = {}
    pool: list[list[GradedPair]] = []
    started = time.monotonic()
    for step in range(schedule.steps):
        for group in optimizer.param_groups:
            group["lr"] = schedule.learning_rate(step)
        if not pool:
            pool = _pool(runner, source, rng, schedule.pairs, encoded)
        batch = pool.pop()
        rows = [(encoded[graded.pair], graded.category) for graded in batch]
        loss, ends = runner.loss(rows)
        places = [tree.place(g.pair.ground_truth) for g in batch] + [tree.place(g.pair.prediction) for g in batch]
        beside = probe.loss(ends, places)
        optimizer.zero_grad()
        (loss + schedule.probe * beside).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if (step + 1) % _REPORT_EVERY == 0 or step + 1 == schedule.steps:
            pace = (time.monotonic() - started) / (step + 1)
            losses = f"loss {loss.item():.4f}, probe {beside.item():.4f}"
            report(f"judge: step {step + 1}/{schedule.steps}, {losses}, {pace:.2f} s/step")


def _pool(
    runner: JudgeRunner, source: PairSource, rng: random.Random, size: int, encoded: dict[Pair, list[int]]
) -> list[list[GradedPair]]:
    """Several batches of pairs for training; each batch holds pairs of similar length, to waste little on padding."""
    drawn: list[GradedPair] = []
    while len(drawn) < size * _STEPS_PER_POOL:
        graded = source.draw(rng)
        if not source.held_out(graded.pair):
            drawn.append(graded)
            if graded.pair not in encoded:
                encoded[graded.pair] = runner.prompt_ids(graded.pair)
    drawn.sort(key=lambda graded: len(encoded[graded.pair]))
    batches = [drawn[begin : begin + size] for begin in range(0, len(drawn), size)]
    rng.shuffle(batches)
    return batches


def held_out_pairs(source: PairSource, draws: int, seed: int) -> list[GradedPair]:
    """Distinct held-out pairs of natural kinds among ``draws`` draws."""
    rng = random.Random(f"{seed}/held out")
    found: dict[Pair, GradedPair] = {}
    for _ in range(draws):
        graded = source.draw(rng)
        if graded.kind != "invented" and source.held_out(graded.pair):
            found[graded.pair] = graded
    return list(found.values())


def agreement(runner: JudgeRunner, pairs: list[GradedPair]) -> dict[str, Any]:
    """Agreement with the taxonomy: overall, per category, per kind, and the confusion matrix (rows: taxonomy)."""
    runner.model.train(False)
    verdicts = runner.verdicts([graded.pair for graded in pairs])
    matrix = [[0] * len(LABELS) for _ in LABELS]
    kinds: dict[str, list[bool]] = {}
    for graded, verdict in zip(pairs, verdicts, strict=True):
        matrix[graded.category][verdict] += 1
        kinds.setdefault(graded.kind, []).append(graded.category is verdict)
    right = sum(matrix[category][category] for category in Category)
    return {
        "pairs": len(pairs),
        "agreement": round(right / len(pairs), 4),
        "recall": {c.label: round(matrix[c][c] / max(1, sum(matrix[c])), 4) for c in Category},
        "by_kind": {kind: round(sum(hits) / len(hits), 4) for kind, hits in sorted(kinds.items())},
        "labels": list(LABELS),
        "confusion": matrix,
    }
