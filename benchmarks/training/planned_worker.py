"""Our agent-loop worker under conditions that change from step to step of one run, for `overlap.py`.

The run's ``benchmark`` node has the plan, e.g. ``+benchmark.plan=[free,stock,1,5] +benchmark.hold=1``: see `plan.py`.
"""

import asyncio
from contextvars import ContextVar
from typing import Any

import ray
from omegaconf import OmegaConf
from plan import FREE, IN_PROCESS, STOCK, condition
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ, AgentLoopWorkerTQ

from speciarl.category import Category
from speciarl.reward.barrier import GroupOutcome
from speciarl.training.agent_loop.manager import GroupAgentLoopManager
from speciarl.training.agent_loop.worker import GroupAgentLoopWorker
from speciarl.training.reward_info import reward_extra_info
from speciarl.verdict import Judgement, Pair, Source, Verdict
from speciarl.verifier_server import Verifier, build, parse_config

_delay_s: ContextVar[float] = ContextVar("delay_s", default=0.0)
_in_process: ContextVar[bool] = ContextVar("in_process", default=False)


def constant_reward(**columns: Any) -> dict[str, Any]:
    """veRL's ``reward.custom_reward_function`` for ``stock`` steps: no work, and a record that our metrics can read."""
    verdict = Verdict(Category.SPECIFIC, None, Source.TAXONOMY)
    outcome = GroupOutcome((1.0,), Category.SPECIFIC, 1)
    record = reward_extra_info(verdict, "", outcome, columns["data_source"], {}, seen=verdict, group_reward=1.0)
    return {"score": 1.0} | record


class PlannedWorker(GroupAgentLoopWorker):
    """Judges late or in this process, by the plan."""

    async def start_verifier(self, key: str | None = None) -> None:
        """See the base class; ``benchmark.judge`` is the judge of ``in_process`` steps."""
        await super().start_verifier(key)
        self._own: Verifier | None = None
        if IN_PROCESS in self.config.benchmark.plan:
            self._own = build(parse_config(OmegaConf.to_container(self.config.benchmark.judge)))
            await self._own.start()

    async def _run_prompt(
        self, prompt: dict[str, Any], sampling_params: dict[str, Any], trajectory: dict[str, Any], trace: bool = False
    ) -> None:
        name = _condition(self.config, trajectory["step"])
        _in_process.set(name == IN_PROCESS)  # the prompt's tasks inherit both
        _delay_s.set(0.0 if name in (FREE, STOCK, IN_PROCESS) else float(name))
        await super()._run_prompt(prompt, sampling_params, trajectory, trace)

    async def _verify(self, pair: Pair) -> Judgement:
        if _delay_s.get():
            await asyncio.sleep(_delay_s.get())
        if self._own is not None and _in_process.get():
            return await self._own.verify(pair)
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
