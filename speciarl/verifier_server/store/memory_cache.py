"""Memory cache with single-flight: each distinct pair is judged once."""

import asyncio
import dataclasses
from collections.abc import Callable, Coroutine
from typing import Any

from cachetools import LRUCache

from speciarl.verdict import Judgement, Pair, Reason, Source, Unscorable, Verdict
from speciarl.verifier_server.client.in_flight import Flight
from speciarl.verifier_server.stats import Stats

_WITHOUT_A_JUDGE = frozenset({Source.SHORTCUT, Source.TAXONOMY})

Judge = Callable[[Flight], Coroutine[Any, Any, Judgement]]
"""Brings the judgement of one pair, and tells the flight when a judge is at work on it."""


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
        self._flights: dict[Pair, Flight] = {}

    @property
    def in_flight(self) -> int:
        """Pairs that are being judged."""
        return len(self._flights)

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

    async def judge_once(self, pair: Pair, judge: Judge) -> Judgement:
        """Wait for the one task that judges this pair; `judge` starts it when there is none.

        A caller that goes away takes nothing from the others; when all have gone, see `Flight`.
        """
        flight = self._flights.get(pair)
        joined = flight is not None and not flight.dropped
        if flight is None or flight.dropped:
            flight = self._launch(pair, judge)
        task = flight.task
        assert task is not None
        flight.join()
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            self._stats.abandoned += 1
            raise
        finally:
            flight.leave()
        if task.cancelled():
            return Unscorable(Reason.CANCELLED, "the verifier was closed")
        judgement = task.result()
        if isinstance(judgement, Verdict):
            if joined:
                self._stats.deduplicated += 1
                return _recalled(judgement)
            self._stats.note_source(judgement.source)
        return judgement

    async def aclose(self) -> None:
        """End all flights; those who wait get Unscorable(cancelled). What is remembered stays."""
        tasks = [flight.task for flight in self._flights.values() if flight.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _launch(self, pair: Pair, judge: Judge) -> Flight:
        flight = Flight()

        def land(_: asyncio.Task[Judgement]) -> None:
            self._stats.dropped += flight.dropped
            if self._flights.get(pair) is flight:  # a dropped one may have a successor
                del self._flights[pair]

        flight.task = asyncio.create_task(self._fly(pair, judge, flight))
        flight.task.add_done_callback(land)
        self._flights[pair] = flight
        return flight

    async def _fly(self, pair: Pair, judge: Judge, flight: Flight) -> Judgement:
        judgement = await judge(flight)
        if isinstance(judgement, Verdict):
            self.remember(pair, judgement)
        return judgement


def _recalled(verdict: Verdict) -> Verdict:
    """As one from memory; what needs no judge stays what it is, however often it is asked for and wherever."""
    return verdict if verdict.source in _WITHOUT_A_JUDGE else dataclasses.replace(verdict, source=Source.MEMORY)
