"""Late scores: rewards of trajectories that were stored before their verdicts were in."""

import asyncio
import math
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

PENDING = math.nan
"""Stored as the reward until the real one is known: whatever were to learn from it would not go unnoticed."""


@dataclass(frozen=True, slots=True)
class Score:
    """What a rollout earned."""

    reward: float
    record: dict[str, Any]
    """Its ``reward_extra_info``."""
    seconds: float
    """From answer to reward."""


class LateScores:
    """A group's scores under way."""

    def __init__(self) -> None:
        self._tasks: dict[int, asyncio.Task[Score]] = {}
        self._closed = asyncio.Event()

    def start(self, session: int, scoring: Coroutine[Any, Any, Score]) -> asyncio.Task[Score]:
        """Score a session's answer while the session goes on."""
        task = self._tasks[session] = asyncio.create_task(scoring)
        return task

    def __contains__(self, session: int) -> bool:
        return session in self._tasks

    async def finish(self) -> None:
        """Wait until every score that was started is known, or known to be missing."""
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def close(self) -> None:
        """The group has ended: its scores are final."""
        self._closed.set()

    async def final(self) -> dict[int, Score | None]:
        """The scores by session, once the group has ended; None for a rollout without one."""
        await self._closed.wait()
        return {session: _score(task) for session, task in self._tasks.items()}


def _score(task: asyncio.Task[Score]) -> Score | None:
    """What went wrong with a missing one was counted where it happened."""
    return None if task.cancelled() or task.exception() is not None else task.result()
