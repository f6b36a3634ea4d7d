"""Memory cache with single-flight: each distinct pair is judged once, for as long as somebody waits."""

import asyncio
import dataclasses
from collections.abc import Callable, Coroutine
from typing import Any

from cachetools import LRUCache

from speciarl.verdict import Judgement, Pair, Reason, Source, Unscorable, Verdict
from speciarl.verifier_server.stats import Stats

_WITHOUT_A_JUDGE = frozenset({Source.SHORTCUT, Source.TAXONOMY})

Judge = Callable[[], Coroutine[Any, Any, Judgement]]
"""Brings the judgement of one pair."""


@dataclasses.dataclass(eq=False)
class _InFlight:
    task: asyncio.Task[Judgement]
    callers: int = 0


class VerdictCache:
    """Remembers verdicts, least recently used dropped first, and lets equal pairs in flight share one task.

    A failure is not remembered: the next request for the pair asks again. Pairs are normalised by the caller.
    """

    def __init__(self, size: int, stats: Stats) -> None:
        """Keep `size` verdicts; 0 keeps none. Hits, shared tasks and callers that leave are counted in
        `stats`."""
        self._size = size
        self._stats = stats
        self._memory: LRUCache[Pair, Verdict] = LRUCache(maxsize=size)
        self._shared: dict[Pair, _InFlight] = {}
        self._tasks: set[asyncio.Task[Judgement]] = set()
        """Those that were cancelled and have not ended yet included."""

    @property
    def in_flight(self) -> int:
        """Pairs that are being judged."""
        return len(self._shared)

    def recall(self, pair: Pair, times: int = 1) -> Verdict | None:
        """The verdict in memory, for so many requests."""
        known = self._memory.get(pair)
        if known is not None:
            self._stats.memory_hits += times
        return known

    def remember(self, pair: Pair, verdict: Verdict) -> None:
        """Keep a verdict for later requests."""
        if self._size:
            self._memory[pair] = _recalled(verdict)

    async def single_flight(self, pair: Pair, judge: Judge) -> Judgement:
        """Wait for the one task that judges this pair; `judge` starts it when there is none.

        A caller that goes away takes nothing from the others; the last one to leave cancels the task, wherever it is.
        """
        shared = self._shared.get(pair)
        joined = shared is not None
        if shared is None:
            shared = self._start(pair, judge)
        shared.callers += 1
        try:
            await asyncio.wait({shared.task})
        except asyncio.CancelledError:
            self._stats.abandoned += 1
            raise
        finally:
            shared.callers -= 1
            if not shared.callers and not shared.task.done():
                self._stats.dropped += 1
                self._forget(pair, shared)  # at once: whoever asks now needs another task
                shared.task.cancel()
        if shared.task.cancelled():
            return Unscorable(Reason.CANCELLED, "the verifier was closed")
        judgement = shared.task.result()
        if isinstance(judgement, Verdict):
            if joined:
                self._stats.deduplicated += 1
                return _recalled(judgement)
            self._stats.count_source(judgement.source)
        return judgement

    async def aclose(self) -> None:
        """End all tasks; those who wait get Unscorable(cancelled). What is remembered stays."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _start(self, pair: Pair, judge: Judge) -> _InFlight:
        shared = _InFlight(asyncio.create_task(self._judge(pair, judge)))
        self._shared[pair] = shared
        self._tasks.add(shared.task)

        def ended(task: asyncio.Task[Judgement]) -> None:
            self._tasks.discard(task)
            self._forget(pair, shared)

        shared.task.add_done_callback(ended)
        return shared

    def _forget(self, pair: Pair, shared: _InFlight) -> None:
        if self._shared.get(pair) is shared:  # a cancelled one may have a successor
            del self._shared[pair]

    async def _judge(self, pair: Pair, judge: Judge) -> Judgement:
        judgement = await judge()
        if isinstance(judgement, Verdict):
            self.remember(pair, judgement)
        return judgement


def _recalled(verdict: Verdict) -> Verdict:
    """As one from memory; what needs no judge stays what it is, however often it is asked for and wherever."""
    return verdict if verdict.source in _WITHOUT_A_JUDGE else dataclasses.replace(verdict, source=Source.MEMORY)
