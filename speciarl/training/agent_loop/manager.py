"""Agent-loop manager: veRL's, with workers that reward whole groups."""

import asyncio
from typing import Any

import ray
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ

from speciarl.training.agent_loop import calls
from speciarl.training.agent_loop.worker import GroupAgentLoopWorker
from speciarl.utils.credentials import read_key


class GroupAgentLoopManager(AgentLoopManagerTQ):
    """Agent-loop manager with `GroupAgentLoopWorker` as its workers.

    Named in ``actor_rollout_ref.rollout.agent.agent_loop_manager_class``.
    """

    agent_loop_workers: list[Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # After veRL's constructor, which sets its own class.
        self.agent_loop_workers_class = ray.remote(GroupAgentLoopWorker)

    async def _init_agent_loop_workers(self) -> None:
        await super()._init_agent_loop_workers()
        # Read here, where the key file is: a worker may be on another node.
        file = self.config.speciarl.verifier.get("api_key_file")
        key = read_key(file, "the verifier service") if file else None
        await asyncio.gather(*[worker.start_verifier.remote(key) for worker in self.agent_loop_workers])

    def generate_sequences(self, prompts: Any) -> None:
        """Dispatch a batch of prompts without waiting for rollouts; raises WorkerLost when a worker is dead."""
        try:
            super().generate_sequences(prompts)
        except ray.exceptions.RayActorError as error:
            raise calls.worker_lost(error) from error
        # veRL always begins with the first worker: unrotated, it would get every refill of a single prompt.
        used = min(len(prompts), len(self.agent_loop_workers))
        self.agent_loop_workers = self.agent_loop_workers[used:] + self.agent_loop_workers[:used]
