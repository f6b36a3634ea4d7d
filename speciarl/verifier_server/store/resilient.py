"""Resilient store: when the store fails, verdicts go on from memory, and it is taken up again when it works."""

import asyncio
import dataclasses
import logging
import time
from collections.abc import Awaitable, Callable, Sequence

from speciarl.utils.deadline import within
from speciarl.verdict import Judgement, Pair, Source, Verdict
from speciarl.verifier_server.stats import Stats
from speciarl.verifier_server.store.gather import Gatherer
from speciarl.verifier_server.store.interface import Claim, StoreError, VerdictStore
from speciarl.verifier_server.store.key import JudgeIdentity
from speciarl.verifier_server.store.record import Record

BATCH = 1000
"""Most pairs in one look-up or write."""
BACKLOG = 100_000
"""Verdicts kept for a store that cannot be written; beyond that the oldest are given up."""
RETRY_S = 5.0
LONGEST_RETRY_S = 60.0
CLOSE_S = 10.0

_FAILURES = (StoreError, TimeoutError)
_ANY_KEY = bytes(32)

_log = logging.getLogger(__name__)


class ResilientStore:
    """One pair at a time for the verifier, batches for the store, and never an error.

    Reading and writing degrade apart: on a full disk known verdicts are still found. What cannot be written is
    kept, up to `backlog` verdicts, and written when the store is back. Trying that is a task of its own, so no
    pair pays for it.
    """

    def __init__(
        self,
        store: VerdictStore,
        judge: JudgeIdentity,
        timeout_s: float,
        stats: Stats,
        on_earlier: Callable[[Record], None] = lambda _: None,
        retry_s: float | None = None,
        backlog: int = BACKLOG,
    ) -> None:
        """`store` is open already and stays the caller's. `on_earlier` hears of records that another process
        had written when the backlog came to be: they are the pinned ones."""
        self._store = store
        self._judge = judge
        self._timeout_s = timeout_s
        self._stats = stats
        self._on_earlier = on_earlier
        self._retry_s = RETRY_S if retry_s is None else retry_s
        self._most_kept = backlog
        self._backlog: list[Record] = []
        self._readable = self._writable = True
        self._recovery: asyncio.Task[None] | None = None
        self._claims = Gatherer(self._claim, BATCH)
        self._puts = Gatherer(self._put, BATCH)
        self._releases = Gatherer(self._release, BATCH)

    async def claim(self, key: bytes) -> Record | Claim:
        """See `VerdictStore.claim`; granted when the store cannot be asked."""
        return await self._claims.ask(key)

    async def put(self, record: Record) -> Record:
        """See `VerdictStore.put`; the record itself when the store cannot be written."""
        return await self._puts.ask(record)

    async def release(self, key: bytes) -> None:
        """See `VerdictStore.release`; when that fails, the claim ends by itself later."""
        await self._releases.ask(key)

    async def aclose(self) -> None:
        """Write what is left, as far as that works within `CLOSE_S`. Safe to call twice."""
        recovery, self._recovery = self._recovery, None
        if recovery is not None:
            recovery.cancel()
            await asyncio.wait({recovery})
        for gatherer in (self._claims, self._puts, self._releases):
            await gatherer.aclose()
        try:
            await within(CLOSE_S, self._flush())
        except _FAILURES as error:
            self._stats.store_errors += 1
            self._lose(len(self._backlog))
            _log.error(
                "verdict store %s: %d verdicts were never written: %s",
                self._store.where,
                len(self._backlog),
                _cause(error, self._timeout_s),
            )
            self._backlog = []

    async def _claim(self, keys: list[bytes]) -> list[Record | Claim]:
        if self._readable:
            try:
                return await within(self._timeout_s, self._store.claim(keys))
            except _FAILURES as error:
                self._readable = False
                self._degrade(error)
            finally:
                self._stats.store_corrupt = self._store.corrupt
        return [Claim.GRANTED] * len(keys)

    async def _put(self, records: list[Record]) -> list[Record]:
        if self._writable:
            try:
                return await within(self._timeout_s, self._store.put(self._judge, records))
            except _FAILURES as error:
                self._writable = False
                self._degrade(error)
            finally:
                self._stats.store_corrupt = self._store.corrupt
        self._keep(records)
        return records

    async def _release(self, keys: list[bytes]) -> list[None]:
        if self._readable:
            try:
                await within(self._timeout_s, self._store.release(keys))
            except _FAILURES as error:
                self._readable = False
                self._degrade(error)
        return [None] * len(keys)

    def _keep(self, records: Sequence[Record]) -> None:
        self._backlog.extend(records)
        excess = len(self._backlog) - self._most_kept
        if excess > 0:
            del self._backlog[:excess]
            self._lose(excess)

    def _lose(self, count: int) -> None:
        self._stats.store_lost += count

    def _degrade(self, error: BaseException) -> None:
        self._stats.store_errors += 1
        self._stats.store_degraded = 1
        if self._recovery is None:
            _log.error(
                "%s; verdicts are kept in memory only until it works again",
                _cause(error, self._timeout_s, self._store.where),
            )
            self._recovery = asyncio.create_task(self._recover())

    async def _recover(self) -> None:
        pause_s = self._retry_s
        while True:
            await asyncio.sleep(pause_s)
            try:
                await within(self._timeout_s, self._store.get([_ANY_KEY]))
                written = await self._flush()
                break
            except _FAILURES as error:
                self._stats.store_errors += 1
                pause_s = min(pause_s * 2, LONGEST_RETRY_S)
                _log.error(
                    "%s; %d verdicts wait to be written, %d are lost; next try in %g s",
                    _cause(error, self._timeout_s, self._store.where),
                    len(self._backlog),
                    self._stats.store_lost,
                    pause_s,
                )
        self._readable = self._writable = True
        self._recovery = None
        self._stats.store_degraded = 0
        _log.warning("verdict store %s works again; %d verdicts were written", self._store.where, written)

    async def _flush(self) -> int:
        """Write the backlog; how many records that were."""
        written = 0
        while self._backlog:
            batch = self._backlog[:BATCH]
            kept = await within(self._timeout_s, self._store.put(self._judge, batch))
            done = set(map(id, batch))
            self._backlog = [record for record in self._backlog if id(record) not in done]
            written += len(batch)
            for record, pinned in zip(batch, kept, strict=True):
                if pinned is not record and pinned != record:
                    self._on_earlier(pinned)
        return written


def _cause(error: BaseException, timeout_s: float, where: str = "") -> str:
    """One line. Time-outs have no text of their own."""
    return str(error) or f"verdict store {where} gave no reply within {timeout_s:g} s"


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
