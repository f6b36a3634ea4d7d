"""The agent-loop manager that starts our workers, and keeps what some rewards remember."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import ray
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ

from speciarl import reward
from speciarl.config import load
from speciarl.training import level_memory, workers
from speciarl.training.agent_loop import GroupAgentLoopWorker

logger = logging.getLogger(__name__)


class GroupAgentLoopManager(AgentLoopManagerTQ):
    """veRL's manager with our workers.

    Named in ``actor_rollout_ref.rollout.agent.agent_loop_manager_class``.
    """

    agent_loop_workers: list[Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(GroupAgentLoopWorker)
        settings = load(self.config).reward
        self._memory = level_memory.start() if reward.remembers(reward.load(settings.name, settings.params)) else None

    async def _init_agent_loop_workers(self) -> None:
        await super()._init_agent_loop_workers()
        if self._memory is not None:
            await asyncio.gather(*[worker.use_memory.remote(self._memory) for worker in self.agent_loop_workers])
        await asyncio.gather(*[worker.start_verifier.remote() for worker in self.agent_loop_workers])

    def save_memory(self, checkpoint: Path) -> None:
        """Save what the reward remembers, if it does, into a checkpoint's directory.

        Should the memory be lost, the rest of the checkpoint is worth saving all the same.
        """
        if self._memory is None:
            return
        try:
            ray.get(self._memory.save.remote(str(checkpoint)), timeout=level_memory.DEADLINE_S)
        except ray.exceptions.RayError as error:
            logger.error(
                "%s is saved without what the reward remembers (%s); a run resumed from it begins with an empty one. "
                "To keep it, resume from the checkpoint before (trainer.resume_mode=resume_path)",
                checkpoint, error,
            )  # fmt: skip

    def load_memory(self, checkpoint: Path, step: int) -> None:
        """Go on with what the reward remembered when the checkpoint of `step` was saved."""
        if self._memory is not None:
            ray.get(self._memory.load.remote(str(checkpoint), step), timeout=level_memory.DEADLINE_S)

    def generate_sequences(self, prompts: Any) -> None:
        """Dispatch a batch of prompts; the workers are rotated so that refills of few prompts spread over all."""
        try:
            super().generate_sequences(prompts)
        except ray.exceptions.RayActorError as error:
            raise workers.lost(error) from error
        used = min(len(prompts), len(self.agent_loop_workers))
        self.agent_loop_workers = self.agent_loop_workers[used:] + self.agent_loop_workers[:used]
