"""Late scores: rewards that become known only after their trajectories were stored."""

import asyncio
import math
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

PENDING = math.nan
"""Reward that is stored until the real one is known. NaN, so that a loss computed from it would be NaN as well."""


@dataclass(frozen=True, slots=True)
class Score:
    """The reward of one rollout, with its record."""

    reward: float
    record: dict[str, Any]
    """Its ``reward_extra_info``, which veRL stores and dumps."""
    seconds: float
    """Wall time from answer to reward."""


class LateScores:
    """Scoring tasks of one group, which may outlive the sessions that started them."""

    def __init__(self) -> None:
        self._tasks: dict[int, asyncio.Task[Score]] = {}
        self._closed = asyncio.Event()

    def start(self, session: int, scoring: Coroutine[Any, Any, Score]) -> asyncio.Task[Score]:
        """The task that scores a session's answer while the session itself goes on."""
        task = self._tasks[session] = asyncio.create_task(scoring)
        return task

    def __contains__(self, session: int) -> bool:
        return session in self._tasks

    async def wait(self) -> None:
        """Wait until every task has ended, with a score or with an error; raises neither."""
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def close(self) -> None:
        """Let `final` return: the group has ended, and no task is added any more."""
        self._closed.set()

    async def final(self) -> dict[int, Score | None]:
        """Scores by session, awaited until the group has ended; None for a rollout without a score."""
        await self._closed.wait()
        return {session: _score(task) for session, task in self._tasks.items()}


def _score(task: asyncio.Task[Score]) -> Score | None:
    """The score of a task that has ended; None after an error, which was counted and logged when it happened."""
    return None if task.cancelled() or task.exception() is not None else task.result()
