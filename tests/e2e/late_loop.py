"""Our agent-loop worker with a judge whose verdicts take their time, go missing or never come, to be named in a run's
configuration."""

import asyncio
import zlib
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

import ray

from speciarl.training.agent_loop.manager import GroupAgentLoopManager
from speciarl.training.agent_loop.worker import GroupAgentLoopWorker
from speciarl.verdict import Judgement, Pair, Reason, Unscorable

DELAY_S = 4.0
"""Longer than it takes to compute log-probabilities at the size of a test, also on a loaded machine."""
ANSWERED_STEPS = 3
"""After them the judge is silent."""

_rollout: ContextVar[tuple[int, str, int]] = ContextVar("rollout")
"""Step, prompt and session of the verdict that is asked for."""


def lost(uid: str, session: int) -> bool:
    """Whether a rollout gets no verdict: all of every fourth prompt, and the second of every other one."""
    kind = zlib.crc32(uid.encode()) % 4
    return kind == 0 or (kind == 2 and session == 1)


class LateVerifier:
    """The verifier behind such a judge."""

    def __init__(self, verifier: Any) -> None:
        self._verifier = verifier

    def __getattr__(self, name: str) -> Any:
        return getattr(self._verifier, name)

    async def verify(self, pair: Pair) -> Judgement:
        """See the verifier."""
        step, uid, session = _rollout.get()
        await asyncio.sleep(DELAY_S if step <= ANSWERED_STEPS else 3600)
        if lost(uid, session):
            return Unscorable(Reason.TIMEOUT, "injected")
        return await self._verifier.verify(pair)


class LateWorker(GroupAgentLoopWorker):
    """Asks it."""

    async def start_verifier(self, key: str | None = None) -> None:
        """See the base class, which makes the client of the run's service here."""
        await super().start_verifier(key)
        self._verifier = LateVerifier(self._verifier)

    async def _score(self, group: Any, session: int, response_ids: Sequence[int]) -> Any:
        _rollout.set((group.step, group.uid, session))
        return await super()._score(group, session, response_ids)


class LateManager(GroupAgentLoopManager):
    """Starts such workers."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(LateWorker)
