"""Reference GRPO in one readable file: the laptop run without veRL, Ray, vLLM or a judge model.

It is the baseline that the real laptop recipe is held against: the same policy, world, reward and step size, with the
taxonomy as judge. One on-policy update per step, so the importance ratio is 1 and clipping never acts.
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from data_prep.emoji.concepts import TRAIN_DOMAIN
from speciarl.category import Category
from speciarl.laptop.policy.picture_bank import Pictures
from speciarl.laptop.policy.report import judge_text
from speciarl.laptop.policy.runner import PolicyRunner, patches
from speciarl.laptop.world import World
from speciarl.metrics import key
from speciarl.taxonomy import Taxonomy

GroupReward = Callable[[list[Category | None]], list[float]]


@dataclass(frozen=True)
class GrpoSettings:
    """Hyper-parameters. ``kl`` weighs the low-variance KL estimate (k3) to the pre-trained policy; with ``decay`` the
    rate falls to 0 along a cosine after the warm-up."""

    steps: int = 50
    pictures: int = 16
    rollouts: int = 8
    lr: float = 2e-4
    kl: float = 0.01
    warm_up: int = 5
    decay: bool = False
    seed: int = 0

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        rate = self.lr * min(1.0, (step + 1) / self.warm_up)
        if not self.decay:
            return rate
        done = max(0.0, (step - self.warm_up) / max(1, self.steps - self.warm_up))
        return rate * 0.5 * (1.0 + math.cos(math.pi * done))


def dynamic(kinds: list[Category | None]) -> list[float]:
    """The dynamic reward (paper, section on the reward); None marks an unparsable response."""
    best = max((kind for kind in kinds if kind is not None), default=Category.WRONG)
    level = min(max(best, Category.ABSTAIN), Category.SPECIFIC)
    return [-1.0 if kind is None else float(kind >= level) for kind in kinds]


def binary(kinds: list[Category | None]) -> list[float]:
    """Only specific answers earn ("reward3" of the reference code)."""
    return [-1.0 if kind is None else float(kind >= Category.SPECIFIC) for kind in kinds]


def graded(kinds: list[Category | None]) -> list[float]:
    """Fixed values per category ("scala1" of the reference code)."""
    values = (0.0, 0.25, 0.5, 0.75, 1.0, 1.0)
    return [-1.0 if kind is None else values[kind] for kind in kinds]


REWARDS: dict[str, GroupReward] = {"dynamic": dynamic, "binary": binary, "graded_1": graded}


def advantages(rewards: torch.Tensor) -> torch.Tensor:
    """Rewards (groups, rollouts) minus the group's mean over its standard deviation."""
    return (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-6)


def train(
    runner: PolicyRunner,
    world: World,
    judge: Taxonomy,
    bank: Pictures,
    reward: GroupReward,
    settings: GrpoSettings,
    report: Callable[[dict[str, float]], object],
) -> None:
    """Train ``runner.model`` in place on the training domain.

    ``bank`` holds pictures (concepts, views, 56, 56, 3) in the world's order; ``report`` gets one row per step.
    """
    model = runner.model
    reference = PolicyRunner(_frozen(model), runner.tokenizer)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.lr, weight_decay=0.0)
    rng = random.Random(settings.seed)
    generator = torch.Generator(device=runner.device).manual_seed(settings.seed)
    pool = [concept.index for concept in world.concepts if concept.domain == TRAIN_DOMAIN]
    queue: list[int] = []
    for step in range(settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = settings.rate(step)
        while len(queue) < settings.pictures:
            queue += rng.sample(pool, len(pool))
        chosen, queue = queue[: settings.pictures], queue[settings.pictures :]
        pixels = patches(bank[chosen, [rng.randrange(bank.shape[1]) for _ in chosen]])
        tokens = runner.sample(pixels, settings.rollouts, generator)
        truths = [world.concepts[index].name for index in chosen for _ in range(settings.rollouts)]
        kinds = [judge_text(judge, truth, text) for truth, text in zip(truths, runner.texts(tokens), strict=True)]
        groups = [kinds[at : at + settings.rollouts] for at in range(0, len(kinds), settings.rollouts)]
        rewards = torch.tensor([reward(group) for group in groups])
        loss, kl = _loss(runner, reference, pixels, tokens, advantages(rewards).reshape(-1), settings.kl)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        shares = {key(kind): kinds.count(kind) / len(kinds) for kind in (*Category, None)}
        report({"step": step + 1.0, "reward": float(rewards.mean()), "kl": kl, **shares})


def _frozen(model: Any) -> Any:
    """A copy that takes no gradients."""
    return copy.deepcopy(model).eval().requires_grad_(False)


def _loss(
    runner: PolicyRunner,
    reference: PolicyRunner,
    pixels: torch.Tensor,
    tokens: torch.Tensor,
    advantage: torch.Tensor,
    kl_weight: float,
) -> tuple[torch.Tensor, float]:
    """Token-mean policy-gradient loss plus weighted KL, and the KL itself in nats per token."""
    mask = (tokens != runner.pad).float()
    ours = _log_probs(runner, pixels, tokens)
    with torch.no_grad():
        theirs = _log_probs(reference, pixels, tokens)
    ratio = (ours - ours.detach()).exp()
    gap = (theirs - ours).clamp(-20.0, 20.0)
    divergence = (gap.exp() - gap - 1.0).clamp(-10.0, 10.0)
    per_token = -ratio * advantage.to(ours.device).unsqueeze(1) + kl_weight * divergence
    mean_kl = float(((divergence * mask).sum() / mask.sum()).detach())
    return (per_token * mask).sum() / mask.sum(), mean_kl


def _log_probs(runner: PolicyRunner, pixels: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    logits = runner.response_logits(pixels, tokens)
    chosen: torch.Tensor = logits.log_softmax(-1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
    return chosen
