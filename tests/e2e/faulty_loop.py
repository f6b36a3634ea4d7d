"""Our agent-loop worker with sessions that raise, to be named in a run's configuration."""

import zlib
from typing import Any

import ray

from speciarl.training.agent_loop.manager import GroupAgentLoopManager
from speciarl.training.agent_loop.seeding import prompt_uid
from speciarl.training.agent_loop.worker import GroupAgentLoopWorker

SEED = 42
"""The recipe's."""
IMAGES = 8


def drawn_first(step: int) -> set[str]:
    """The prompts that a step begins with. The fault spares those that replace what was lost, of which an outage takes
    any number: so many sessions that raise would end the run for that alone."""
    return {prompt_uid(SEED, step, ordinal) for ordinal in range(IMAGES)}


def raises(uid: str, session: int) -> bool:
    """Whether the fault hits a session of such a prompt: the first of about half of all, and all but one of some."""
    return (session == 0 and zlib.crc32(uid.encode()) % 2 == 0) or (session > 0 and lonely(uid))


def lonely(uid: str) -> bool:
    """Whether a single session of a prompt is left."""
    return zlib.crc32(uid.encode()) % 8 == 3


class FaultyWorker(GroupAgentLoopWorker):
    """Some sessions raise before they generate."""

    async def _run_shared(self, rollout: Any, sampling_params: Any, trajectory: Any, **kwargs: Any) -> Any:
        uid = kwargs["uid"]
        if uid in drawn_first(int(trajectory["step"])) and raises(uid, kwargs["session_id"]):
            raise RuntimeError("injected into this session")
        return await super()._run_shared(rollout, sampling_params, trajectory, **kwargs)


class FaultyManager(GroupAgentLoopManager):
    """Starts such workers."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(FaultyWorker)
