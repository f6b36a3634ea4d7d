"""Pairs that wait at the same moment share a request; one that cannot be read never costs the others theirs."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from speciarl.verdict import Judgement, Pair, Reason, Unscorable
from speciarl.verifier_server.deadline import within

Ask = Callable[[Sequence[Pair]], Awaitable[Sequence[Judgement]]]
"""One request about some pairs: one judgement for each, in their order. Raises only CancelledError."""

_WORTH_ANOTHER_LOOK = frozenset({Reason.MALFORMED, Reason.OFF_LABEL, Reason.HTTP_ERROR})
"""Failures that a neighbour may have caused. What concerns the server itself, such as an overload, was retried by then
and would only be made worse by more requests."""

_GRACE_S = 0.1
"""By so much the deadline of a batch lies after that of its first request, whose message tells more."""

_CLOSED = Unscorable(Reason.CANCELLED, "the verifier was closed")

_Batch: TypeAlias = Sequence[tuple[Pair, "asyncio.Future[Judgement]"]]


class Batcher:
    """Gathers pairs into requests. Pairs without a verdict are asked about again in ever smaller company, at last
    alone. Bound to the event loop in which it is used."""

    def __init__(self, ask: Ask, size: int, gather_s: float, deadline_s: float) -> None:
        """`size`: most pairs in a request; `gather_s`: longest wait for company; `deadline_s`: for one pair in
        all."""
        self._ask = ask
        self._size = size
        self._gather_s = gather_s
        self._deadline_s = deadline_s
        self._waiting: list[tuple[Pair, asyncio.Future[Judgement]]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def judge(self, pair: Pair) -> Judgement:
        """The judgement of one pair, within the deadline. Raises only CancelledError."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Judgement] = loop.create_future()
        self._waiting.append((pair, future))
        if len(self._waiting) >= self._size:
            self._send()
        elif self._timer is None:
            self._timer = loop.call_later(self._gather_s, self._send)
        return await future

    async def aclose(self) -> None:
        """Ask about nothing more; pairs still waiting become Unscorable(cancelled)."""
        for _, future in self._waiting:
            if not future.done():
                future.set_result(_CLOSED)
        self._forget_waiting()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _send(self) -> None:
        batch = self._waiting
        last: dict[Pair, Unscorable] = {}
        self._forget_waiting()
        work = within(self._deadline_s + _GRACE_S, self._settle(batch, last))
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(lambda task: self._finish(task, batch, last))

    def _forget_waiting(self) -> None:
        self._waiting = []
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _finish(self, task: asyncio.Task[None], batch: _Batch, last: dict[Pair, Unscorable]) -> None:
        """Answer those whom the requests left without an answer."""
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        for pair, future in batch:
            if future.done():
                continue
            if task.cancelled():
                future.set_result(_CLOSED)
            elif isinstance(error, asyncio.TimeoutError):
                before = f"; last: {last[pair].detail}" if pair in last else ""
                future.set_result(Unscorable(Reason.TIMEOUT, f"no verdict within {self._deadline_s:g} s{before}"))
            elif error is not None:
                future.set_exception(error)

    async def _settle(self, batch: _Batch, last: dict[Pair, Unscorable]) -> None:
        wanted = [(pair, future) for pair, future in batch if not future.done()]  # the others' callers went away
        if not wanted:
            return
        judgements = await self._ask([pair for pair, _ in wanted])
        again = []
        for (pair, future), judgement in zip(wanted, judgements, strict=True):
            if isinstance(judgement, Unscorable) and judgement.reason in _WORTH_ANOTHER_LOOK and len(wanted) > 1:
                last[pair] = judgement
                again.append((pair, future))
            elif not future.done():
                future.set_result(judgement)
        half = max(len(wanted) // 2, 1)
        parts = [again[at : at + half] for at in range(0, len(again), half)]
        await asyncio.gather(*(self._settle(part, last) for part in parts))
