"""Pairs that are asked for at about the same time, in one request."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from speciarl.verdict import Judgement, Pair, Reason, Unscorable

Send = Callable[[Sequence[Pair]], Awaitable[list[Judgement]]]
"""From pairs to one judgement each, in their order."""


class Bundler:
    """Gathers pairs for a moment, or until there are enough. Bound to one event loop."""

    def __init__(self, send: Send, most_pairs: int, gather_s: float) -> None:
        self._send = send
        self._most = most_pairs
        self._gather_s = gather_s
        self._gathered: list[tuple[Pair, asyncio.Future[Judgement]]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._sending: set[asyncio.Task[None]] = set()

    async def ask(self, pair: Pair) -> Judgement:
        """The judgement of one pair. A caller that goes away takes nothing from the others."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Judgement] = loop.create_future()
        self._gathered.append((pair, future))
        if len(self._gathered) >= self._most:
            self._flush()
        elif self._timer is None:
            self._timer = loop.call_later(self._gather_s, self._flush)
        return await future

    async def aclose(self) -> None:
        """End all requests; those who wait get Unscorable(cancelled)."""
        self._flush()
        tasks = list(self._sending)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        # Those who left while the batch was gathered are not asked for.
        batch = [(pair, future) for pair, future in self._gathered if not future.done()]
        self._gathered = []
        if batch:
            task = asyncio.create_task(self._run(batch))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)
            task.add_done_callback(lambda ended: _settle(ended, batch))

    async def _run(self, batch: Sequence[tuple[Pair, "asyncio.Future[Judgement]"]]) -> None:
        judgements = await self._send([pair for pair, _ in batch])
        for (_, future), judgement in zip(batch, judgements, strict=True):
            if not future.done():
                future.set_result(judgement)


def _settle(ended: "asyncio.Task[None]", batch: Sequence[tuple[Pair, "asyncio.Future[Judgement]"]]) -> None:
    """Nobody of a batch is left waiting, however its request ended."""
    error = None if ended.cancelled() else ended.exception()
    for _, future in batch:
        if future.done():
            continue
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(Unscorable(Reason.CANCELLED, "the verifier was closed"))
