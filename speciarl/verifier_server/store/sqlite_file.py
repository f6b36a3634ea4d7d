"""SQLite file of a store: opens it, checks it, and moves it aside when it is damaged. All calls block."""

import contextlib
import fcntl
import logging
import os
import queue
import sqlite3
import threading
import time
from asyncio import wrap_future
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from speciarl.verifier_server.store.interface import StoreError
from speciarl.verifier_server.store.sqlite_layout import LAYOUT, create, migrate

T = TypeVar("T")


class BlockingThread:
    """Thread that runs blocking calls one after another, off the event loop.

    A daemon thread: a disk that hangs does not keep the process from ending. (A pool of the standard library
    would be joined at exit.)
    """

    def __init__(self, name: str) -> None:
        """The thread starts with the first call."""
        self._name = name
        self._jobs: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def run(self, call: Callable[[], T]) -> T:
        """What the call returns or raises. A call that is cancelled before its turn is not made."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        job: Future[T] = Future()
        self._jobs.put((job, call))
        return await wrap_future(job)

    def stop(self) -> None:
        """Let the thread end after the queued calls. Final."""
        self._jobs.put(None)

    def _work(self) -> None:
        while (entry := self._jobs.get()) is not None:
            job, call = entry
            if not job.set_running_or_notify_cancel():
                continue
            try:
                result = call()
            except BaseException as error:  # noqa: BLE001 - raised to the caller of `run`
                job.set_exception(error)
            else:
                job.set_result(result)


APPLICATION_ID = 0x53706C76
"""SQLite application id that marks our files (header, bytes 68-71)."""

_MAGIC = b"SQLite format 3\0"
_HEADER_BYTES = 100
_POLL_S = 0.05
_OPEN_S = 600.0
"""Seconds to wait while another process opens the file, which may have to migrate it from an older layout.
Callers have deadlines of their own."""
_CACHE_KIB = 64 * 1024
_WAL_PAGES = 4000
"""Pages in the write-ahead log that start a checkpoint into the file: fewer, larger flushes."""

_log = logging.getLogger(__name__)


def connect(path: Path, timeout_s: float, create: bool = True, suspect: bool = False) -> sqlite3.Connection:
    """Connection to the store at `path`, which with `create` is made when missing.

    With `create` a damaged file is moved aside and a new one started; `suspect` has the whole file checked for that,
    not only its beginning. Raises StoreError for a file that is not ours or of another version, and sqlite3.Error
    or OSError when it cannot be read and written. The connection may be used from any one thread at a time.
    """
    if create:
        path.parent.mkdir(parents=True, exist_ok=True)
    elif not path.exists():
        raise StoreError(f"there is no verdict store at {path}; check the path")
    # Locked, as of two processes that find the same damage the second would move the new file aside.
    with _lock(path.with_name(path.name + ".lock"), max(timeout_s, _OPEN_S)):
        _refuse_foreign(path)
        try:
            return _open(path, timeout_s, suspect)
        except sqlite3.DatabaseError as error:
            if not is_damage(error) or not create:
                raise
            aside = _move_aside(path)
            _log.error(
                "verdict store %s is damaged (%s); it is now %s, and a new store is started in its place",
                path,
                error,
                aside,
            )
            return _open(path, timeout_s, suspect=False)


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the error means damaged content; for a lock, a full disk and the like sqlite3 raises subclasses."""
    return type(error) is sqlite3.DatabaseError


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection, kind: str = "IMMEDIATE") -> Iterator[None]:
    """Transaction, rolled back on any error. IMMEDIATE takes the write lock at once, DEFERRED at the first write."""
    connection.execute(f"BEGIN {kind}")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _open(path: Path, timeout_s: float, suspect: bool) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=timeout_s, isolation_level=None, check_same_thread=False)
    try:
        if suspect:
            verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if verdict != "ok":
                raise sqlite3.DatabaseError(verdict)
        # Texts as bytes: decoding damaged ones would fail the whole query, where we refuse one entry.
        connection.text_factory = bytes
        # One transaction, so that a crash leaves no half-made store nor one without our mark; also checks we can write.
        with transaction(connection, "DEFERRED"):  # IMMEDIATE would write a new file's header before the next line
            connection.execute("PRAGMA auto_vacuum=INCREMENTAL")  # has an effect on a new file only; takes the lock
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, 1, LAYOUT):
                raise StoreError(
                    f"verdict store {path} has format version {version}, this SpeciaRL knows {LAYOUT}: "
                    "export it with the SpeciaRL that wrote it and import it here, or choose another path"
                )
            if version == 1:
                migrate(connection, str(path))
            create(connection)
            connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version={LAYOUT}")
        if version == 1:
            connection.executescript("PRAGMA incremental_vacuum")  # the pages of the old tables
        connection.execute("PRAGMA journal_mode=WAL")
        # No fsync per commit: a killed process loses nothing, a power failure the last seconds, never the rest.
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute(f"PRAGMA wal_autocheckpoint={_WAL_PAGES}")
        connection.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
        return connection
    except BaseException:
        connection.close()
        raise


def _refuse_foreign(path: Path) -> None:
    """Raise StoreError for a file that is not ours, so that a mistyped path never overwrites or moves it."""
    if not path.exists():
        return
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    marked = header[68:72] == APPLICATION_ID.to_bytes(4, "big")
    if header.strip(b"\0") and not marked:
        what = "an SQLite file of something else" if header.startswith(_MAGIC) else "no SQLite file"
        raise StoreError(f"{path} is {what}, not a verdict store; choose another path")


def _move_aside(path: Path) -> Path:
    """Rename a damaged file and its write-ahead log to a name that is free; returns that of the file."""
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    aside = path.with_name(f"{path.name}.damaged-{stamp}")
    number = 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.damaged-{stamp}-{number}")
    for suffix in ("-wal", "-shm", ""):  # the file last: killed in between, the next start finds it and goes on
        with contextlib.suppress(FileNotFoundError):
            os.replace(f"{path}{suffix}", f"{aside}{suffix}")
    return aside


@contextlib.contextmanager
def _lock(path: Path, timeout_s: float) -> Iterator[None]:
    """Exclusive lock between processes, polled as flock has no time-out; raises StoreError after `timeout_s`."""
    expires = time.monotonic() + timeout_s
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= expires:
                    raise StoreError(f"another process has held {path} for {timeout_s:g} s; try again") from None
                time.sleep(_POLL_S)
        yield  # closing the file releases the lock
