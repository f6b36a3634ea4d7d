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
    With `one_at_a_time`, as in a group commit, what is asked while a bundle is worked on makes up the next one, and
    the work goes on even if all have gone.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Asked[Q, R]]], Awaitable[None]],
        most: int,
        gather_s: float,
        closed: R,
        one_at_a_time: bool = False,
    ) -> None:
        """`answer` replies to a bundle of at most `most` questions, in any order; what it raises is raised to those
        without a reply. `gather_s`: longest wait for company. `closed`: the reply to whoever waits at the end."""
        self._answer = answer
        self._most = most
        self._gather_s = gather_s
        self._closed = closed
        self._one_at_a_time = one_at_a_time
        self._gathered: list[Asked[Q, R]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, question: Q) -> R:
        """The reply to one question."""
        loop = asyncio.get_running_loop()
        asked: Asked[Q, R] = Asked(question, loop.create_future())
        self._gathered.append(asked)
        self._go_on()
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

    def _go_on(self) -> None:
        """Send what there is, now or after a wait for company."""
        if not self._gathered or (self._one_at_a_time and self._tasks):
            return
        if len(self._gathered) >= self._most:
            self._send()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._gather_s, self._send)

    def _take(self, most: int) -> list[Asked[Q, R]]:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        taken, self._gathered = self._gathered[:most], self._gathered[most:]
        return [asked for asked in taken if asked.wanted]  # the others left meanwhile

    def _send(self) -> None:
        bundle = self._take(self._most)
        if not bundle:
            self._go_on()
            return
        task = asyncio.get_running_loop().create_task(self._work(bundle))
        self._tasks.add(task)
        task.add_done_callback(lambda ended: self._settle(ended, bundle))

        def left(future: "asyncio.Future[R]") -> None:
            if future.cancelled() and not any(asked.wanted for asked in bundle):
                task.cancel()

        if not self._one_at_a_time:
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
        self._go_on()


def in_order(
    answer: Callable[[list[Q]], Awaitable[Sequence[R]]],
) -> Callable[[Sequence[Asked[Q, R]]], Awaitable[None]]:
    """For `Bundler`: a function that gives one reply for each question, in their order."""

    async def reply_all(bundle: Sequence[Asked[Q, R]]) -> None:
        replies = await answer([asked.question for asked in bundle])
        for asked, reply in zip(bundle, replies, strict=True):
            asked.reply(reply)

    return reply_all
