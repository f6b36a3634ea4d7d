"""Pre-training schedules, in steps, so that a run does not depend on the machine's speed."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from speciarl.laptop import world
from speciarl.laptop.world import Mixture


@dataclass(frozen=True)
class Stage:
    """One stretch of pre-training with its own warm-up and cosine decay to zero.

    ``pictures`` per step, each with ``responses`` drawn responses. ``phases`` are (share of the stage at which the
    phase ends, mixture) in ascending order; the last share is 1.
    """

    name: str
    steps: int
    pictures: int
    responses: int
    peak_lr: float
    phases: tuple[tuple[float, Mixture], ...]

    def mixture(self, step: int) -> Mixture:
        """The response distribution at a step, counted from 0."""
        progress = step / self.steps
        return next((mixture for end, mixture in self.phases if progress < end), self.phases[-1][1])

    def learning_rate(self, step: int) -> float:
        """Linear warm-up over ``WARM_UP`` steps times a cosine from 1 to 0."""
        return self.peak_lr * min(1.0, (step + 1) / WARM_UP) * (0.5 + 0.5 * math.cos(math.pi * step / self.steps))


WARM_UP = 60

POLICY_STAGES = (
    Stage("names", 1900, 48, 2, 1.2e-3, ((0.75, world.NAMING), (1.0, world.NAMING_GENERIC))),
    Stage("thoughts", 750, 64, 1, 8e-4, ((0.55, world.THINKING), (1.0, world.THINKING_GENERIC))),
    Stage("blur", 350, 64, 1, 5e-4, ((1.0, world.FINAL),)),
    Stage("settle", 800, 64, 3, 8e-4, ((1.0, world.FINAL),)),
)
"""First learn what things are called, then to think aloud before answering, then to be unsure of the names, and last
to know which pictures are familiar."""


@dataclass(frozen=True)
class JudgeSchedule:
    """Cycles of ``pairs`` drawn pairs a step, each with warm-up and cosine decay; similar lengths share a step.

    The restart matters: the first cycle ends at about 95 % held-out agreement, the second above 98 %.
    """

    cycles: tuple[tuple[int, float], ...] = ((2600, 2e-3), (2000, 1.5e-3))
    """(steps, peak learning rate) of each cycle."""
    pairs: int = 160
    weight_decay: float = 0.1
    probe: float = 0.5
    """Weight of the auxiliary task (``tree_probe``)."""

    @property
    def steps(self) -> int:
        """Steps of all cycles."""
        return sum(steps for steps, _ in self.cycles)

    def scaled(self, factor: float) -> JudgeSchedule:
        """The same with all step counts multiplied, each at least 1."""
        return replace(self, cycles=tuple((max(1, round(steps * factor)), peak) for steps, peak in self.cycles))

    def learning_rate(self, step: int) -> float:
        """Linear warm-up over ``WARM_UP`` steps times a cosine from 1 to 0, in each cycle; 0 after the last."""
        for steps, peak in self.cycles:
            if step < steps:
                return peak * min(1.0, (step + 1) / WARM_UP) * (0.5 + 0.5 * math.cos(math.pi * step / steps))
            step -= steps
        return 0.0
