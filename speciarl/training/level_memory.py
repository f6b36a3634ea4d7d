"""The run's memory of the best level of every image, in an actor of its own.

Prompts of one image may land on any agent-loop worker, so the memory belongs to none of them. It is saved with each
checkpoint and cut back to it on resume, so a resumed run remembers what the uninterrupted one would have.
"""

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from speciarl.category import Category
from speciarl.errors import SpeciaRLError
from speciarl.reward import GroupReward, Member, recalling
from speciarl.reward.memory import BestLevels, read, save

logger = logging.getLogger(__name__)

FILE = "best_levels.json"
"""In the directory of each checkpoint."""

DEADLINE_S = 300.0
"""The actor answers from memory, except that it reads or writes one small file with a checkpoint."""


class LevelMemory:
    """What runs in the actor; a thin shell around `BestLevels`."""

    def __init__(self) -> None:
        self._levels = BestLevels()

    def before(self, image: str, step: int) -> Category | None:
        """See `BestLevels.before`."""
        return self._levels.before(image, step)

    def note(self, image: str, step: int, category: Category) -> None:
        """See `BestLevels.note`."""
        self._levels.note(image, step, category)

    def save(self, checkpoint: str) -> int:
        """Write the memory into a checkpoint's directory; returns the number of images."""
        Path(checkpoint).mkdir(parents=True, exist_ok=True)
        save(self._levels, Path(checkpoint) / FILE)
        return len(self._levels)

    def load(self, checkpoint: str, step: int) -> int:
        """Go on from a checkpoint taken after `step`; returns the number of images.

        Raises ValueError for a damaged file. A checkpoint of another reward has none, and the memory begins empty.
        """
        path = Path(checkpoint) / FILE
        if path.is_file():
            self._levels = read(path)
            self._levels.forget_after(step)
        else:
            logger.warning(
                "%s does not exist, so no image has a best level yet: the run began with another reward", path
            )
        return len(self._levels)


def start() -> Any:
    """A handle on a new actor, which lives as long as the handle's owner, and on its node, where checkpoints are."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=here)(LevelMemory).remote()


class RewardMemoryLost(SpeciaRLError):
    """What the reward remembers of earlier steps cannot be had, so no reward of this group would be right."""


class Recall:
    """A worker's side of the memory."""

    def __init__(self, memory: Any) -> None:
        self._memory = memory

    async def best(self, image: str, step: int) -> Category | None:
        """What the image reached in earlier steps; raises RewardMemoryLost."""
        found: Category | None = await self._ask(self._memory.before.remote(image, step))
        return found

    async def note(self, image: str, step: int, level: Category) -> None:
        """A group of this image reached `level` in `step`; raises RewardMemoryLost."""
        await self._ask(self._memory.note.remote(image, step, level))

    async def reward_of(
        self, reward: GroupReward, image: str, step: int, validate: bool
    ) -> tuple[Category | None, GroupReward]:
        """What the image reached before, and the reward of a group of it. Validation has no past.

        Without an answer of the memory it is a reward that fails every rollout of the group.
        """
        if validate:
            return None, recalling(reward, None)
        try:
            best = await self.best(image, step)
        except RewardMemoryLost as error:
            return None, _refusing(error)
        return best, recalling(reward, best)

    @staticmethod
    async def _ask(reply: Any) -> Any:
        try:
            return await asyncio.wait_for(reply, DEADLINE_S)
        except (ray.exceptions.RayError, asyncio.TimeoutError) as error:
            raise RewardMemoryLost(f"the memory of best levels does not answer: {error}") from error


def _refusing(error: RewardMemoryLost) -> GroupReward:
    def refuse(members: Sequence[Member]) -> list[float | None]:
        raise error

    return refuse
