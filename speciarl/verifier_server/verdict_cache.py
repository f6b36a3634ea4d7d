"""Each distinct pair is judged once: memory, and one flight per pair."""

import asyncio
import dataclasses
from collections.abc import Callable, Coroutine
from typing import Any

from cachetools import LRUCache

from speciarl.verdict import Judgement, Pair, Reason, Source, Unscorable, Verdict
from speciarl.verifier_server.stats import Stats


class VerdictCache:
    """Remembers verdicts, least recently used dropped first, and lets equal pairs share one flight.

    A failure is not remembered: the next request for the pair asks again. Pairs are normalised by the caller.
    """

    def __init__(self, size: int, stats: Stats) -> None:
        """Keep `size` verdicts; 0 keeps none. Hits, shared flights and callers that leave are counted in
        `stats`."""
        self._size = size
        self._stats = stats
        self._memory: LRUCache[Pair, Verdict] = LRUCache(maxsize=size)
        self._flights: dict[Pair, asyncio.Task[Judgement]] = {}

    @property
    def in_flight(self) -> int:
        """Pairs that are being judged."""
        return len(self._flights)

    def recall(self, pair: Pair) -> Verdict | None:
        """The verdict in memory, as one from there."""
        known = self._memory.get(pair)
        if known is None:
            return None
        self._stats.memory_hits += 1
        return dataclasses.replace(known, source=Source.MEMORY)

    async def judge_once(self, pair: Pair, judge: Callable[[], Coroutine[Any, Any, Judgement]]) -> Judgement:
        """Wait for the one task that judges this pair; `judge` starts it when there is none.

        A caller that goes away takes nothing from the others.
        """
        flight = self._flights.get(pair)
        joined = flight is not None
        if flight is None:
            flight = asyncio.create_task(self._fly(pair, judge))
            self._flights[pair] = flight
            flight.add_done_callback(lambda _: self._flights.pop(pair))
        try:
            await asyncio.wait({flight})
        except asyncio.CancelledError:
            self._stats.abandoned += 1
            raise
        if flight.cancelled():
            return Unscorable(Reason.CANCELLED, "the verifier was closed")
        judgement = flight.result()
        if isinstance(judgement, Verdict):
            if joined:
                self._stats.deduplicated += 1
                return dataclasses.replace(judgement, source=Source.MEMORY)
            self._stats.note_source(judgement.source)
        return judgement

    async def aclose(self) -> None:
        """End all flights; those who wait get Unscorable(cancelled). What is remembered stays."""
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        if flights:
            await asyncio.wait(flights)

    async def _fly(self, pair: Pair, judge: Callable[[], Coroutine[Any, Any, Judgement]]) -> Judgement:
        judgement = await judge()
        if isinstance(judgement, Verdict) and self._size:
            self._memory[pair] = judgement
        return judgement
