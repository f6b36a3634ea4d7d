"""Pre-training of the miniature policy from scratch, stage by stage; a finished stage is never repeated."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from data_prep.emoji.concepts import load_concepts
from speciarl.laptop.policy.model import build_policy, build_policy_tokenizer
from speciarl.laptop.policy.picture_bank import Pictures, draw_views
from speciarl.laptop.policy.runner import PolicyRunner, patches, response_ids
from speciarl.laptop.schedule import POLICY_STAGES, Stage
from speciarl.laptop.world import Response, World
from speciarl.utils.atomic_files import replacing

BANK_VIEWS = 64
"""Views per concept in pre-training."""
_REPORT_EVERY = 100

Report = Callable[[str], object]


@dataclass(frozen=True)
class PolicyRun:
    """Settings of a pre-training run. ``work`` receives one file per finished stage."""

    work: Path
    seed: int = 0
    device: str = "cpu"
    stages: tuple[Stage, ...] = POLICY_STAGES
    bank_views: int = BANK_VIEWS


def pretrain_policy(run: PolicyRun, report: Report) -> tuple[PolicyRunner, World, dict[str, float]]:
    """The pre-trained policy, its world and the seconds per stage (of this or an earlier, interrupted call)."""
    world = World(load_concepts())
    torch.manual_seed(run.seed)
    tokenizer = build_policy_tokenizer(world.words)
    runner = PolicyRunner(build_policy(tokenizer, run.device), tokenizer)
    run.work.mkdir(parents=True, exist_ok=True)
    seconds: dict[str, float] = {}
    bank: Pictures | None = None
    for stage in run.stages:
        file = run.work / f"{stage.name}.pt"
        if file.is_file():
            saved = torch.load(file, map_location=run.device, weights_only=True)
            runner.model.load_state_dict(saved["weights"])
            seconds[stage.name] = saved["seconds"]
            report(f"{stage.name}: taken from {file}")
            continue
        if bank is None:
            report(f"drawing {run.bank_views} views of {len(world.concepts)} concepts")
            bank = draw_views(world.concepts, run.bank_views, run.seed, "pretrain")
        started = time.monotonic()
        run_stage(runner, world, bank, stage, run.seed, report)
        seconds[stage.name] = round(time.monotonic() - started, 1)
        with replacing(file) as draft:
            torch.save({"weights": runner.model.state_dict(), "seconds": seconds[stage.name]}, draft)
    return runner, world, seconds


def run_stage(runner: PolicyRunner, world: World, bank: Pictures, stage: Stage, seed: int, report: Report) -> None:
    """Train ``runner.model`` in place on responses drawn from the world."""
    rng = random.Random(f"{seed}/{stage.name}")
    encoded: dict[Response, list[int]] = {}
    optimizer = torch.optim.AdamW(runner.model.parameters(), lr=stage.peak_lr, weight_decay=0.01)
    runner.model.train()
    started = time.monotonic()
    for step in range(stage.steps):
        for group in optimizer.param_groups:
            group["lr"] = stage.learning_rate(step)
        chosen = rng.choices(range(len(world.concepts)), k=stage.pictures)
        views = [rng.randrange(bank.shape[1]) for _ in chosen]
        mixture = stage.mixture(step)
        rows: list[list[int]] = []
        for index in chosen:
            for _ in range(stage.responses):
                response = world.draw(world.concepts[index], mixture, rng)
                if response not in encoded:
                    encoded[response] = response_ids(runner.tokenizer, response.text)
                rows.append(encoded[response])
        loss = _loss(runner, patches(bank[chosen, views]), rows)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(runner.model.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % _REPORT_EVERY == 0 or step + 1 == stage.steps:
            pace = (time.monotonic() - started) / (step + 1)
            report(f"{stage.name}: step {step + 1}/{stage.steps}, loss {loss.item():.3f}, {pace:.2f} s/step")


def _loss(runner: PolicyRunner, pixels: torch.Tensor, rows: list[list[int]]) -> torch.Tensor:
    """Mean cross-entropy over response tokens."""
    width = max(map(len, rows))
    targets = torch.tensor([row + [runner.pad] * (width - len(row)) for row in rows], device=runner.device)
    logits = runner.response_logits(pixels, targets)
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=runner.pad)
