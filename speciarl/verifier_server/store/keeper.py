"""The way of one pair past the store: found, or judged once and pinned."""

import asyncio
import dataclasses
import time
from collections.abc import Awaitable, Callable

from speciarl.verdict import Judgement, Pair, Source, Verdict
from speciarl.verifier_server.stats import Stats
from speciarl.verifier_server.store.identity import JudgeIdentity
from speciarl.verifier_server.store.interface import Claim
from speciarl.verifier_server.store.record import Record
from speciarl.verifier_server.store.resilient import ResilientStore

FIRST_POLL_S = 0.02
LONGEST_POLL_S = 0.5
WAIT_SHARE = 0.5
"""Share of a pair's deadline for which it may wait for another service; the rest is left for the judge."""

Ask = Callable[[float], Awaitable[Judgement]]
"""Asks the judge, within the given seconds."""


class Keeper:
    """Looks a pair up before it is judged, and pins the verdict after. Trouble with the store costs no verdict."""

    def __init__(self, store: ResilientStore, judge: JudgeIdentity, deadline_s: float, stats: Stats) -> None:
        self._store = store
        self._judge = judge
        self._deadline_s = deadline_s
        self._stats = stats

    async def settle(self, pair: Pair, ask: Ask) -> Judgement:
        """The stored verdict (source STORE), or the judge's; if somebody's was written first, that one.

        `pair` is normalised. While another service judges the pair we wait for its verdict, and take over when
        it gives up, dies or takes too long. That wait counts under the deadline.
        """
        clock = asyncio.get_running_loop().time
        begun = clock()
        key = self._judge.key(pair)
        found = await self._look_up(key, patience_s=self._deadline_s * WAIT_SHARE)
        if isinstance(found, Record):
            return found.verdict
        pinned = False
        try:
            judgement = await ask(max(begun + self._deadline_s - clock(), 0.0))
            if isinstance(judgement, Verdict):
                judgement = await self._pin(pair, judgement)
                pinned = True
            return judgement
        finally:
            if not pinned and found is Claim.GRANTED:
                await self._store.release(key)

    async def aclose(self) -> None:
        """See `ResilientStore.aclose`."""
        await self._store.aclose()

    async def _look_up(self, key: bytes, patience_s: float) -> Record | Claim:
        clock = asyncio.get_running_loop().time
        expires = clock() + patience_s
        pause_s = FIRST_POLL_S
        while True:
            asked_at = clock()
            found = await self._claim(key)
            self._stats.store_seconds += clock() - asked_at
            left_s = expires - clock()
            if found is not Claim.HELD or left_s <= 0:
                return found
            pause_s = min(pause_s, left_s)
            await asyncio.sleep(pause_s)
            self._stats.lease_seconds += pause_s
            pause_s = min(pause_s * 2, LONGEST_POLL_S)

    async def _claim(self, key: bytes) -> Record | Claim:
        """A claim that comes when nobody wants it any more is given back: it would be prolonged for long."""
        claim = asyncio.ensure_future(self._store.claim(key))
        try:
            return await asyncio.shield(claim)
        except asyncio.CancelledError:
            if await claim is Claim.GRANTED:
                await self._store.release(key)
            raise

    async def _pin(self, pair: Pair, verdict: Verdict) -> Verdict:
        clock = asyncio.get_running_loop().time
        asked_at = clock()
        kept = await self._store.put(Record.of(self._judge.fingerprint, pair, verdict, time.time()))
        self._stats.store_seconds += clock() - asked_at
        return dataclasses.replace(kept.verdict, source=Source.LIVE)
