"""SQLite store: the embedded store, one file that is shared by the processes of one machine."""

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from speciarl.verifier_server.store.interface import Entries, StoreError
from speciarl.verifier_server.store.key import JudgeIdentity, verified_judges
from speciarl.verifier_server.store.record import EntryReader, Record
from speciarl.verifier_server.store.sqlite_file import BlockingThread, connect, is_damage, transaction
from speciarl.verifier_server.store.sqlite_layout import COLUMNS, INTO_VERDICTS, record_of, row_of

T = TypeVar("T")

_VACUUM_PAGES = 1000
"""Most pages that a deletion gives back to the disk."""
_KEYS = 500
"""Keys in one statement; older SQLite takes no more than 999 values."""

_log = logging.getLogger(__name__)


class FileStore:
    """SQLite implementation of `VerdictStore`. Two processes that share the file may judge a pair twice, and still
    both use the verdict that was written first.

    A connection on which anything failed is closed, and the next call opens another: so the store recovers by
    itself when the disk has room again, when a lock is gone, or when the file was damaged and moved aside.
    """

    def __init__(self, path: str | Path, timeout_s: float = 5.0, create: bool = True) -> None:
        """`timeout_s` bounds the wait for another process's lock. Without `create` a missing or damaged
        file is an error and stays as it is."""
        self._path = Path(path).expanduser().absolute()
        self.where = str(self._path)
        self._timeout_s = timeout_s
        self._create = create
        self._reader = EntryReader(self.where, record_of)
        self._thread: BlockingThread | None = None
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        self._suspect = False  # after a sign of damage: the next connection checks the whole file
        self._registered: set[bytes] = set()  # judges that are in the file

    @property
    def corrupt(self) -> int:
        """See `VerdictStore.corrupt`."""
        return self._reader.corrupt

    async def open(self) -> None:
        """See `VerdictStore.open`."""
        if self._thread is None:
            self._thread = BlockingThread(f"verdict store {self._path.name}")
        try:
            await self._run(lambda _: None)
        except StoreError:
            await self.aclose()
            raise
        except asyncio.CancelledError:  # the disk hangs, and closing would too
            self._thread.stop()
            self._thread = None
            raise

    async def get(self, keys: Sequence[bytes]) -> list[Record | None]:
        """See `VerdictStore.get`."""
        return await self._run(lambda connection: self._get(connection, keys))

    async def put(self, judge: JudgeIdentity, records: Sequence[Record]) -> list[Record]:
        """See `VerdictStore.put`. One transaction."""
        return await self._run(lambda connection: self._put(connection, judge, records))

    async def judges(self) -> Mapping[bytes, JudgeIdentity]:
        """See `VerdictStore.judges`. A damaged one is left out; the judge's next verdict writes it anew."""
        return await self._run(_judges)

    async def scan(self, chunk: int = 1000) -> AsyncIterator[Entries]:
        """See `VerdictStore.scan`. In key order; no read lasts longer than a chunk."""
        after = b""
        while entries := await self._run(partial(self._page, after=after, count=chunk)):
            yield entries
            after = entries[-1][0]

    async def delete(self, keys: Sequence[bytes]) -> None:
        """See `VerdictStore.delete`. Gives up to `_VACUUM_PAGES` pages back to the disk."""

        def delete(connection: sqlite3.Connection) -> None:
            with transaction(connection):
                connection.executemany("DELETE FROM verdicts WHERE key = ?", [(key,) for key in keys])
            connection.executescript(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})")  # execute() takes one step only

        await self._run(delete)

    async def aclose(self) -> None:
        """See `VerdictStore.aclose`."""
        thread, self._thread = self._thread, None
        if thread is not None:
            try:
                await thread.run(self._disconnect)
            finally:
                thread.stop()

    async def _run(self, call: Callable[[sqlite3.Connection], T]) -> T:
        if self._thread is None:
            raise StoreError(f"verdict store {self.where} is not open")
        return await self._thread.run(lambda: self._with_connection(call))

    def _with_connection(self, call: Callable[[sqlite3.Connection], T]) -> T:
        """Result of a call on the connection, opened if there is none; runs in the store's thread."""
        try:
            if self._connection is not None and not self._is_same_file():
                _log.error("verdict store %s was moved or removed while in use; a new one is started", self.where)
                self._disconnect()
            if self._connection is None:
                self._registered.clear()
                self._connection = self._connect()
                self._inode = self._path.stat().st_ino
                self._suspect = False
            return call(self._connection)
        except (sqlite3.Error, OSError) as error:
            self._suspect |= isinstance(error, sqlite3.Error) and is_damage(error)
            self._disconnect()
            cause = error.strerror if isinstance(error, OSError) else str(error)
            raise StoreError(f"verdict store {self.where} cannot be used: {cause}; {_remedy(cause)}") from error

    def _connect(self) -> sqlite3.Connection:
        return connect(self._path, self._timeout_s, self._create, self._suspect)

    def _is_same_file(self) -> bool:
        """Whether the path still leads to the open file: SQLite goes on writing to a moved or deleted one unnoticed."""
        try:
            return self._path.stat().st_ino == self._inode
        except FileNotFoundError:
            return False

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):  # it failed already; what was committed is safe
                connection.close()

    def _get(self, connection: sqlite3.Connection, keys: Sequence[bytes]) -> list[Record | None]:
        found: dict[bytes, Record | None] = {}
        for start in range(0, len(keys), _KEYS):  # a statement costs as much as several rows
            some = keys[start : start + _KEYS]
            marks = ", ".join("?" * len(some))
            rows = connection.execute(f"SELECT {COLUMNS} FROM verdicts WHERE key IN ({marks})", some)
            found |= {row[0]: self._reader.read(row[0], row) for row in rows}
        return [found.get(key) for key in keys]

    def _put(self, connection: sqlite3.Connection, judge: JudgeIdentity, records: Sequence[Record]) -> list[Record]:
        with transaction(connection):
            if judge.fingerprint not in self._registered:
                connection.execute("INSERT OR REPLACE INTO judges VALUES (?, ?)", (judge.fingerprint, judge.to_json()))
            new = connection.executemany(f"INSERT OR IGNORE {INTO_VERDICTS}", map(row_of, records)).rowcount
            # Fewer new rows than records: some keys were in the file already, and the first writer wins.
            stored = list(records) if new == len(records) else [self._stored(connection, record) for record in records]
        self._registered.add(judge.fingerprint)
        return stored

    def _stored(self, connection: sqlite3.Connection, record: Record) -> Record:
        """The record in the file under the same key; a damaged one is replaced by the given one."""
        found = self._get(connection, [record.key])[0]
        if found is None:
            connection.execute(f"REPLACE {INTO_VERDICTS}", row_of(record))
        return found or record

    def _page(self, connection: sqlite3.Connection, after: bytes, count: int) -> Entries:
        rows = connection.execute(
            f"SELECT {COLUMNS} FROM verdicts WHERE key > ? ORDER BY key LIMIT ?", (after, count)
        ).fetchall()
        return [(row[0], self._reader.read(row[0], row)) for row in rows]


def _judges(connection: sqlite3.Connection) -> Mapping[bytes, JudgeIdentity]:
    return verified_judges(connection.execute("SELECT fingerprint, identity FROM judges").fetchall())


def _remedy(cause: str | None) -> str:
    if "full" in (cause or ""):
        return "make room on the disk"
    if "locked" in (cause or ""):
        return "another process holds it; wait for that to end"
    if "malformed" in (cause or "") or "not a database" in (cause or ""):
        return "it is damaged: a run that uses it moves it aside and starts a new one"
    return "check that the path can be written and is on a local disk"
