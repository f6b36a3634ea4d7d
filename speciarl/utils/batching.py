"""Batcher: answers queries that arrive at about the same time with one call."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Q = TypeVar("Q")
R = TypeVar("R")


@dataclass(frozen=True, eq=False)
class Query(Generic[Q, R]):
    """One query: a question and the future of its reply."""

    question: Q
    future: "asyncio.Future[R]"

    @property
    def pending(self) -> bool:
        """Whether a caller still waits for the reply."""
        return not self.future.done()

    def reply(self, reply: R) -> None:
        """Resolve the future; a second reply, and one whose caller was cancelled, is dropped."""
        if self.pending:
            self.future.set_result(reply)


class Batcher(Generic[Q, R]):
    """Collects questions for `gather_s` or until there are `most`, then answers them together. Bound to one event loop.

    A cancelled caller does not affect the others; when all callers of a batch are cancelled, so is the work on it.
    With `serial`, as in a group commit, only one batch is in progress, questions asked meanwhile form the next one, and
    every question is answered even if its caller is cancelled.
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
        that wait when the batcher is closed."""
        self._answer = answer
        self._most = most
        self._gather_s = gather_s
        self._closed = closed
        self._serial = serial
        self._gathered: list[Query[Q, R]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, question: Q) -> R:
        """Wait for the reply to one question."""
        loop = asyncio.get_running_loop()
        asked: Query[Q, R] = Query(question, loop.create_future())
        self._gathered.append(asked)
        self._schedule()
        return await asked.future

    async def aclose(self) -> None:
        """Cancel all work; callers that wait get `closed`. Safe to call twice."""
        for asked in self._take(len(self._gathered)):
            asked.reply(self._closed)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _schedule(self) -> None:
        """Start a batch: now if it is full, else when `gather_s` is over."""
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
        # A caller may have been cancelled while questions were gathered; `serial` answers its question all the same.
        return [asked for asked in taken if asked.pending or self._serial]

    def _send(self) -> None:
        batch = self._take(self._most)
        if not batch:
            self._schedule()
            return
        task = asyncio.get_running_loop().create_task(self._work(batch))
        self._tasks.add(task)
        task.add_done_callback(lambda ended: self._resolve(ended, batch))

        def cancel_if_abandoned(future: "asyncio.Future[R]") -> None:
            if future.cancelled() and not any(asked.pending for asked in batch):
                task.cancel()

        if not self._serial:
            for asked in batch:
                asked.future.add_done_callback(cancel_if_abandoned)

    async def _work(self, batch: Sequence[Query[Q, R]]) -> None:
        await self._answer(batch)  # a coroutine, which `create_task` needs, of any awaitable

    def _resolve(self, ended: "asyncio.Task[None]", batch: Sequence[Query[Q, R]]) -> None:
        """Resolve every future of a batch, however its task ended, so that no caller waits for ever."""
        self._tasks.discard(ended)
        error = None if ended.cancelled() else ended.exception()
        for asked in batch:
            if error is not None and asked.pending:
                asked.future.set_exception(error)
            asked.reply(self._closed)
        self._schedule()


def in_order(
    answer: Callable[[list[Q]], Awaitable[Sequence[R]]],
) -> Callable[[Sequence[Query[Q, R]]], Awaitable[None]]:
    """Adapt to `Batcher` a function that returns one reply per question, in their order."""

    async def reply_all(batch: Sequence[Query[Q, R]]) -> None:
        replies = await answer([asked.question for asked in batch])
        for asked, reply in zip(batch, replies, strict=True):
            asked.reply(reply)

    return reply_all
