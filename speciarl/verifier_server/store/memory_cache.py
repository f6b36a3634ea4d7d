"""Memory cache with single-flight: each distinct pair in flight is one task, shared by all who ask for it."""

import asyncio
import dataclasses
from collections.abc import Callable, Coroutine
from typing import Any

from cachetools import LRUCache

from speciarl.verdict import Judgement, Pair, Reason, Source, Unscorable, Verdict
from speciarl.verifier_server.stats import Stats

_WITHOUT_A_JUDGE = frozenset({Source.SHORTCUT, Source.TAXONOMY})

Judge = Callable[[], Coroutine[Any, Any, Judgement]]
"""Coroutine function that returns the judgement of one pair."""


@dataclasses.dataclass(eq=False)
class _InFlight:
    task: asyncio.Task[Judgement]
    callers: int = 0


class VerdictCache:
    """LRU cache of verdicts, in which equal pairs in flight share one task (single-flight).

    A failure is not cached: the next request for the pair asks again. Pairs are normalised by the caller.
    """

    def __init__(self, size: int, stats: Stats) -> None:
        """Cache `size` verdicts; 0 caches none. Hits, shared tasks and callers that leave are counted in
        `stats`."""
        self._size = size
        self._stats = stats
        self._memory: LRUCache[Pair, Verdict] = LRUCache(maxsize=size)
        self._shared: dict[Pair, _InFlight] = {}
        self._tasks: set[asyncio.Task[Judgement]] = set()
        """All tasks that have not ended yet, cancelled ones included."""

    @property
    def in_flight(self) -> int:
        """Number of distinct pairs being judged."""
        return len(self._shared)

    def recall(self, pair: Pair, times: int = 1) -> Verdict | None:
        """The cached verdict, counted as `times` hits; None when there is none."""
        known = self._memory.get(pair)
        if known is not None:
            self._stats.memory_hits += times
        return known

    def remember(self, pair: Pair, verdict: Verdict) -> None:
        """Cache a verdict for later requests."""
        if self._size:
            self._memory[pair] = _from_memory(verdict)

    async def single_flight(self, pair: Pair, judge: Judge) -> Judgement:
        """Wait for the one task that judges this pair; `judge` starts it when there is none.

        A caller that is cancelled leaves the task to the others; the last one to leave cancels it, wherever it is.
        """
        shared = self._shared.get(pair)
        joined = shared is not None
        if shared is None:
            shared = self._start(pair, judge)
        shared.callers += 1
        try:
            await asyncio.wait({shared.task})  # unlike `await task`, does not cancel the task with this caller
        except asyncio.CancelledError:
            self._stats.abandoned += 1
            raise
        finally:
            shared.callers -= 1
            if not shared.callers and not shared.task.done():
                self._stats.dropped += 1
                self._remove_in_flight(pair, shared)  # at once: nobody may join a task that is being cancelled
                shared.task.cancel()
        if shared.task.cancelled():
            return Unscorable(Reason.CANCELLED, "the verifier was closed")
        judgement = shared.task.result()
        if isinstance(judgement, Verdict):
            if joined:
                self._stats.deduplicated += 1
                return _from_memory(judgement)
            self._stats.count_source(judgement.source)
        return judgement

    async def aclose(self) -> None:
        """Cancel all tasks; their callers get Unscorable(cancelled). Cached verdicts stay."""
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
            self._remove_in_flight(pair, shared)

        shared.task.add_done_callback(ended)
        return shared

    def _remove_in_flight(self, pair: Pair, shared: _InFlight) -> None:
        if self._shared.get(pair) is shared:  # after a cancelled task the pair may be in flight again
            del self._shared[pair]

    async def _judge(self, pair: Pair, judge: Judge) -> Judgement:
        judgement = await judge()
        if isinstance(judgement, Verdict):
            self.remember(pair, judgement)
        return judgement


def _from_memory(verdict: Verdict) -> Verdict:
    """The verdict with source MEMORY; one that needed no judge keeps its source."""
    return verdict if verdict.source in _WITHOUT_A_JUDGE else dataclasses.replace(verdict, source=Source.MEMORY)
