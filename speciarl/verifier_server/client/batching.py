"""Batching: questions asked at about the same time are answered by one call."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Q = TypeVar("Q")
R = TypeVar("R")


@dataclass(frozen=True, eq=False)
class Asked(Generic[Q, R]):
    """One question, and who waits for the reply."""

    question: Q
    future: "asyncio.Future[R]"

    @property
    def wanted(self) -> bool:
        """Whether somebody still waits, and has no reply yet."""
        return not self.future.done()

    def reply(self, reply: R) -> None:
        """Give the reply; a second one, and one that nobody waits for, is dropped."""
        if self.wanted:
            self.future.set_result(reply)


class Bundler(Generic[Q, R]):
    """Gathers questions for a moment, or until there are enough. Bound to one event loop.

    A caller that goes away takes nothing from the others; when all of a bundle have gone, work on it is broken off.
    """

    def __init__(
        self, answer: Callable[[Sequence[Asked[Q, R]]], Awaitable[None]], most: int, gather_s: float, closed: R
    ) -> None:
        """`answer` replies to a bundle of at most `most` questions, in any order; what it raises is raised to those
        without a reply. `gather_s`: longest wait for company. `closed`: the reply to whoever waits at the end."""
        self._answer = answer
        self._most = most
        self._gather_s = gather_s
        self._closed = closed
        self._gathered: list[Asked[Q, R]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, question: Q) -> R:
        """The reply to one question."""
        loop = asyncio.get_running_loop()
        asked: Asked[Q, R] = Asked(question, loop.create_future())
        self._gathered.append(asked)
        if len(self._gathered) >= self._most:
            self._send()
        elif self._timer is None:
            self._timer = loop.call_later(self._gather_s, self._send)
        return await asked.future

    async def aclose(self) -> None:
        """End all work. Safe to call twice."""
        for asked in self._take():
            asked.reply(self._closed)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _take(self) -> list[Asked[Q, R]]:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        gathered, self._gathered = self._gathered, []
        return [asked for asked in gathered if asked.wanted]  # the others left meanwhile

    def _send(self) -> None:
        bundle = self._take()
        if not bundle:
            return
        task = asyncio.get_running_loop().create_task(self._work(bundle))
        self._tasks.add(task)
        task.add_done_callback(lambda ended: self._settle(ended, bundle))

        def left(future: "asyncio.Future[R]") -> None:
            if future.cancelled() and not any(asked.wanted for asked in bundle):
                task.cancel()

        for asked in bundle:
            asked.future.add_done_callback(left)

    async def _work(self, bundle: Sequence[Asked[Q, R]]) -> None:
        await self._answer(bundle)

    def _settle(self, ended: "asyncio.Task[None]", bundle: Sequence[Asked[Q, R]]) -> None:
        """Nobody of a bundle is left waiting, however the work on it ended."""
        self._tasks.discard(ended)
        error = None if ended.cancelled() else ended.exception()
        for asked in bundle:
            if error is not None and asked.wanted:
                asked.future.set_exception(error)
            asked.reply(self._closed)
