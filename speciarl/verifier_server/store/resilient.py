"""Resilient store: while the store behind it fails, a write-behind backlog in memory takes its place."""

import asyncio
import logging
from collections.abc import Callable, Sequence

from speciarl.utils.batching import Batcher, in_order
from speciarl.utils.deadline import within
from speciarl.verifier_server.stats import Stats
from speciarl.verifier_server.store.interface import StoreError, VerdictStore
from speciarl.verifier_server.store.key import JudgeIdentity
from speciarl.verifier_server.store.record import Record

BATCH = 1000
"""Most records in one look-up or write."""
BACKLOG = 100_000
"""Most verdicts in the backlog of a store that cannot be written; beyond that the oldest are lost."""
RETRY_S = 5.0
LONGEST_RETRY_S = 60.0
CLOSE_S = 10.0

_FAILURES = (StoreError, TimeoutError)
_ANY_KEY = bytes(32)  # read to see whether the store works; it need not have an entry

_log = logging.getLogger(__name__)


class ResilientStore:
    """Store that takes one pair at a time, passes them on in batches (group commit), and never raises.

    Reads and writes degrade separately: on a full disk known verdicts are still found. What cannot be written goes
    to a write-behind backlog of up to `backlog` verdicts, written when the store works again. A background task
    retries that, so no pair waits for it.
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
        """`store` is open already; the caller closes it. `on_earlier` is called with each record that another
        process had written before the backlog was: the stored one is to be used."""
        self._store = store
        self._judge = judge
        self._timeout_s = timeout_s
        self._stats = stats
        self._on_earlier = on_earlier
        self._retry_s = RETRY_S if retry_s is None else retry_s
        self._most_backlog = backlog
        self._backlog: list[Record] = []
        self._readable = self._writable = True
        self._recovery: asyncio.Task[None] | None = None
        # Group commit: one transaction at a time; what is asked meanwhile shares the next one.
        self._gets: Batcher[bytes, Record | None] = Batcher(in_order(self._get), BATCH, 0.0, None, serial=True)
        self._puts: Batcher[Record, Record | None] = Batcher(in_order(self._put), BATCH, 0.0, None, serial=True)

    async def get(self, key: bytes) -> Record | None:
        """See `VerdictStore.get`; None when the store cannot be asked."""
        return await self._gets.ask(key)

    async def put(self, record: Record) -> Record:
        """See `VerdictStore.put`; the record itself when the store cannot be written."""
        return await self._puts.ask(record) or record

    async def aclose(self) -> None:
        """Write the backlog within `CLOSE_S`; what is not written by then is lost. Safe to call twice."""
        recovery, self._recovery = self._recovery, None
        if recovery is not None:
            recovery.cancel()
            await asyncio.wait({recovery})
        await self._gets.aclose()
        await self._puts.aclose()
        try:
            await within(CLOSE_S, self._flush())
        except _FAILURES as error:
            self._stats.store_errors += 1
            self._stats.store_lost += len(self._backlog)
            _log.error(
                "verdict store %s: %d verdicts were never written: %s",
                self._store.where,
                len(self._backlog),
                _cause(error, self._timeout_s),
            )
            self._backlog = []

    async def _get(self, keys: list[bytes]) -> list[Record | None]:
        if self._readable:
            try:
                return await within(self._timeout_s, self._store.get(keys))
            except _FAILURES as error:
                self._readable = False
                self._degrade(error)
            finally:
                self._stats.store_corrupt = self._store.corrupt
        return [None] * len(keys)

    async def _put(self, records: list[Record]) -> list[Record]:
        if self._writable:
            try:
                return await within(self._timeout_s, self._store.put(self._judge, records))
            except _FAILURES as error:
                self._writable = False
                self._degrade(error)
            finally:
                self._stats.store_corrupt = self._store.corrupt
        self._add_to_backlog(records)
        return records

    def _add_to_backlog(self, records: Sequence[Record]) -> None:
        self._backlog.extend(records)
        excess = len(self._backlog) - self._most_backlog
        if excess > 0:
            del self._backlog[:excess]
            self._stats.store_lost += excess

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
        """Write the backlog; returns the number of records written."""
        written = 0
        while self._backlog:
            batch = self._backlog[:BATCH]
            stored = await within(self._timeout_s, self._store.put(self._judge, batch))
            done = set(map(id, batch))  # by identity: the backlog may have grown and lost its oldest meanwhile
            self._backlog = [record for record in self._backlog if id(record) not in done]
            written += len(batch)
            for record, earlier in zip(batch, stored, strict=True):
                if earlier is not record and earlier != record:
                    self._on_earlier(earlier)
        return written


def _cause(error: BaseException, timeout_s: float, where: str = "") -> str:
    """Cause in one line; a TimeoutError has no text of its own."""
    return str(error) or f"verdict store {where} gave no reply within {timeout_s:g} s"
