"""Batcher: queries that come at about the same time are answered by one call."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Q = TypeVar("Q")
R = TypeVar("R")


@dataclass(frozen=True, eq=False)
class Query(Generic[Q, R]):
    """One question and the future of its reply."""

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


class Batcher(Generic[Q, R]):
    """Collects questions for `gather_s` or until there are `most`, then answers them together. Bound to one event loop.

    A caller that goes away takes nothing from the others; when all of a batch have gone, work on it is broken off.
    With `serial`, as in a group commit, what is asked while a batch is worked on makes up the next one, and all of it
    is worked on even if the callers have gone.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Query[Q, R]]], Awaitable[None]],
        most: int,
        gather_s: float,
        closed: R,
        serial: bool = False,
    ) -> None:
        """`answer` replies to a batch of at most `most` questions, in any order; what it raises is raised to those
        without a reply. `gather_s`: longest wait of the first question, in seconds. `closed`: the reply to those
        who wait when the batcher is closed."""
        self._answer = answer
        self._most = most
        self._gather_s = gather_s
        self._closed = closed
        self._serial = serial
        self._gathered: list[Query[Q, R]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, question: Q) -> R:
        """The reply to one question."""
        loop = asyncio.get_running_loop()
        asked: Query[Q, R] = Query(question, loop.create_future())
        self._gathered.append(asked)
        self._schedule()
        return await asked.future

    async def aclose(self) -> None:
        """End all work. Safe to call twice."""
        for asked in self._take(len(self._gathered)):
            asked.reply(self._closed)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _schedule(self) -> None:
        """Send what there is, now or when `gather_s` is over."""
        if not self._gathered or (self._serial and self._tasks):
            return
        if len(self._gathered) >= self._most:
            self._send()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._gather_s, self._send)

    def _take(self, most: int) -> list[Query[Q, R]]:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        taken, self._gathered = self._gathered[:most], self._gathered[most:]
        # Whoever went away while questions were gathered is not asked for, unless the work is to be done in any case.
        return [asked for asked in taken if asked.wanted or self._serial]

    def _send(self) -> None:
        batch = self._take(self._most)
        if not batch:
            self._schedule()
            return
        task = asyncio.get_running_loop().create_task(self._work(batch))
        self._tasks.add(task)
        task.add_done_callback(lambda ended: self._resolve(ended, batch))

        def left(future: "asyncio.Future[R]") -> None:
            if future.cancelled() and not any(asked.wanted for asked in batch):
                task.cancel()

        if not self._serial:
            for asked in batch:
                asked.future.add_done_callback(left)

    async def _work(self, batch: Sequence[Query[Q, R]]) -> None:
        await self._answer(batch)

    def _resolve(self, ended: "asyncio.Task[None]", batch: Sequence[Query[Q, R]]) -> None:
        """Resolve every future of a batch, however the work on it ended, so that nobody waits for ever."""
        self._tasks.discard(ended)
        error = None if ended.cancelled() else ended.exception()
        for asked in batch:
            if error is not None and asked.wanted:
                asked.future.set_exception(error)
            asked.reply(self._closed)
        self._schedule()


def in_order(
    answer: Callable[[list[Q]], Awaitable[Sequence[R]]],
) -> Callable[[Sequence[Query[Q, R]]], Awaitable[None]]:
    """For `Batcher`: a function that gives one reply for each question, in their order."""

    async def reply_all(batch: Sequence[Query[Q, R]]) -> None:
        replies = await answer([asked.question for asked in batch])
        for asked, reply in zip(batch, replies, strict=True):
            asked.reply(reply)

    return reply_all
