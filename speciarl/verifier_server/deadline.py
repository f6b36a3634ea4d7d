"""A time limit on a block of a coroutine, without a task of its own (`asyncio.timeout` needs Python 3.11)."""

import asyncio
import math
import sys
from collections.abc import Awaitable
from types import TracebackType
from typing import TypeVar

T = TypeVar("T")


async def within(seconds: float | None, work: Awaitable[T]) -> T:
    """Await `work`; raises asyncio.TimeoutError when it takes longer. No limit where `seconds` is None.

    Before Python 3.12 `asyncio.wait_for` forgets a cancellation that falls into the instant in which the work ends
    (python/cpython#86296): whoever was told to stop would then go on. This one does not.
    """
    with Deadline(math.inf if seconds is None else seconds):
        return await work
    raise asyncio.TimeoutError


class Deadline:
    """``with Deadline(seconds) as deadline:`` breaks the block off when the time is up; `missed` then is True.

    The block ends at its next `await`. A cancellation by somebody else goes on as such; before Python 3.11 it cannot
    be told from the deadline's own when both fall into the same instant, and the deadline wins.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = max(seconds, 0.0)
        self._task: asyncio.Task[object] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.missed = False

    def __enter__(self) -> "Deadline":
        self._task = asyncio.current_task()
        if self._seconds < math.inf:
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self._expire)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        assert self._task is not None
        if self._timer is not None:
            self._timer.cancel()
        if not self.missed:
            return False
        others = self._task.uncancel() if sys.version_info >= (3, 11) else 0
        return kind is asyncio.CancelledError and not others

    def _expire(self) -> None:
        assert self._task is not None
        self.missed = True
        self._task.cancel()
