"""Read-through store: looks a verdict up, else asks the judge and writes it; the first writer wins."""

import asyncio
import dataclasses
import time
from collections.abc import Awaitable, Callable

from speciarl.verdict import Judgement, Pair, Source, Verdict
from speciarl.verifier_server.stats import Stats
from speciarl.verifier_server.store.key import JudgeIdentity
from speciarl.verifier_server.store.record import Record
from speciarl.verifier_server.store.resilient import ResilientStore

Ask = Callable[[float], Awaitable[Judgement]]
"""Coroutine function that asks the judge, within the given seconds."""


class ReadThroughStore:
    """Read-through store of one judge's verdicts. A failure of the store costs no verdict."""

    def __init__(self, store: ResilientStore, judge: JudgeIdentity, deadline_s: float, stats: Stats) -> None:
        """`deadline_s` bounds look-up and judge together, not the write."""
        self._store = store
        self._judge = judge
        self._deadline_s = deadline_s
        self._stats = stats

    async def get_or_judge(self, pair: Pair, ask: Ask) -> Judgement:
        """The stored verdict (source STORE), else the judge's (LIVE); if another process wrote one first, that one.

        `pair` is normalised.
        """
        clock = asyncio.get_running_loop().time
        begun = clock()
        found = await self._store.get(self._judge.key(pair))
        looked_up_s = clock() - begun
        self._stats.store_seconds += looked_up_s
        if found is not None:
            return found.verdict
        judgement = await ask(max(self._deadline_s - looked_up_s, 0.0))
        return await self._write(pair, judgement) if isinstance(judgement, Verdict) else judgement

    async def aclose(self) -> None:
        """See `ResilientStore.aclose`."""
        await self._store.aclose()

    async def _write(self, pair: Pair, verdict: Verdict) -> Verdict:
        clock = asyncio.get_running_loop().time
        begun = clock()
        stored = await self._store.put(Record.of(self._judge.fingerprint, pair, verdict, time.time()))
        self._stats.store_seconds += clock() - begun
        # LIVE also for another process's verdict that was written first: the judge was asked for this call.
        return dataclasses.replace(stored.verdict, source=Source.LIVE)
