"""Our agent-loop worker under conditions that change from step to step of one run, for `overlap.py`.

The run's ``benchmark`` node has the plan, e.g. ``+benchmark.plan=[free,stock,1,5] +benchmark.hold=1``: see `plan.py`.
"""

import asyncio
from contextvars import ContextVar
from typing import Any

import ray
from plan import FREE, STOCK, condition
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ, AgentLoopWorkerTQ

from speciarl.category import Category
from speciarl.reward.barrier import GroupOutcome
from speciarl.training.agent_loop.manager import GroupAgentLoopManager
from speciarl.training.agent_loop.worker import GroupAgentLoopWorker
from speciarl.training.reward_info import reward_extra_info
from speciarl.verdict import Judgement, Pair, Source, Verdict

_delay_s: ContextVar[float] = ContextVar("delay_s", default=0.0)


def constant_reward(**columns: Any) -> dict[str, Any]:
    """veRL's ``reward.custom_reward_function`` for ``stock`` steps: no work, and a record that our metrics can read."""
    verdict = Verdict(Category.SPECIFIC, None, Source.TAXONOMY)
    outcome = GroupOutcome((1.0,), Category.SPECIFIC, 1)
    record = reward_extra_info(verdict, "", outcome, columns["data_source"], {}, seen=verdict, group_reward=1.0)
    return {"score": 1.0} | record


class PlannedWorker(GroupAgentLoopWorker):
    """Judges late, by the plan."""

    async def _run_prompt(
        self, prompt: dict[str, Any], sampling_params: dict[str, Any], trajectory: dict[str, Any], trace: bool = False
    ) -> None:
        name = _condition(self.config, trajectory["step"])
        _delay_s.set(0.0 if name in (FREE, STOCK) else float(name))  # the prompt's tasks inherit it
        await super()._run_prompt(prompt, sampling_params, trajectory, trace)

    async def _verify(self, pair: Pair) -> Judgement:
        if _delay_s.get():
            await asyncio.sleep(_delay_s.get())
        return await super()._verify(pair)


class PlannedManager(GroupAgentLoopManager):
    """Sends a step's prompts to our workers or to as many stock ones."""

    async def _init_agent_loop_workers(self) -> None:
        self.stock_workers: list[Any] = []
        if STOCK in self.config.benchmark.plan:
            self.agent_loop_workers_class = AgentLoopWorkerTQ
            await AgentLoopManagerTQ._init_agent_loop_workers(self)
            self.stock_workers = self.agent_loop_workers
        self.agent_loop_workers_class = ray.remote(PlannedWorker)
        await super()._init_agent_loop_workers()

    def generate_sequences(self, prompts: Any) -> None:
        """See the base class."""
        if _condition(self.config, int(prompts["global_steps"])) != STOCK:
            super().generate_sequences(prompts)
            return
        ours, self.agent_loop_workers = self.agent_loop_workers, self.stock_workers
        try:
            AgentLoopManagerTQ.generate_sequences(self, prompts)
        finally:
            self.agent_loop_workers = ours


def _condition(config: Any, step: int) -> str:
    return condition(config.benchmark.plan, config.benchmark.hold, step)
