"""Gatherer: many single questions at once, answered in batches (group commit, pipelining)."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

Q = TypeVar("Q")
R = TypeVar("R")


class Gatherer(Generic[Q, R]):
    """Hands what was asked while a batch was under way to the next one. Nobody waits for a batch to fill."""

    def __init__(self, answer: Callable[[list[Q]], Awaitable[list[R]]], most: int) -> None:
        """`answer` gives one reply per question, in order; it gets at most `most` questions."""
        self._answer = answer
        self._most = most
        self._waiting: deque[tuple[Q, asyncio.Future[R]]] = deque()
        self._asked: list[tuple[Q, asyncio.Future[R]]] = []
        self._worker: asyncio.Task[None] | None = None

    async def ask(self, question: Q) -> R:
        """The reply; raises what `answer` raised for the batch."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, future))
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        return await future

    async def aclose(self) -> None:
        """Cancel the batch under way and all who wait."""
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.wait({self._worker})
            self._worker = None
        self._end(lambda future: future.cancel())

    async def _work(self) -> None:
        try:
            while self._waiting:
                self._asked = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
                replies = await self._answer([question for question, _ in self._asked])
                for (_, future), reply in zip(self._asked, replies, strict=True):
                    if not future.done():
                        future.set_result(reply)
        except Exception as error:  # noqa: BLE001 - handed to all who wait
            cause = error
            self._end(lambda future: future.set_exception(cause))
        self._worker = None

    def _end(self, end: Callable[[asyncio.Future[R]], object]) -> None:
        for _, future in (*self._asked, *self._waiting):
            if not future.done():
                end(future)
        self._asked = []
        self._waiting.clear()
