"""Verdict log writer: buffers rows in memory until they are many or old enough, and writes them to files."""

import fcntl
import io
import logging
import secrets
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from speciarl.errors import ConfigError
from speciarl.verifier_server.service.config import LogConfig, is_run_name
from speciarl.verifier_server.service.runs.rows import Counts, PartName, Row, finished_parts, read_counts, write_part

RETRY_S = 1.0
LONGEST_RETRY_S = 30.0

_log = logging.getLogger(__name__)


@dataclass
class Waiting:
    """Buffer of rows that will be one file."""

    name: PartName
    since: float
    rows: list[Row] = field(default_factory=list)
    sealed: bool = False
    """Whether it takes no more rows."""


@dataclass
class _RunLog:
    finished: list[PartName] = field(default_factory=list)
    waiting: list[Waiting] = field(default_factory=list)


class VerdictLog:
    """Verdict log of all runs. An accepted row is lost only if the process is killed or `close` cannot write it.

    A thread writes the files. When the disk fails, rows stay in the buffer and are tried again; when that is full,
    `append` refuses.
    """

    def __init__(self, config: LogConfig) -> None:
        self.directory = Path(config.directory)
        self._config = config
        self._writer = secrets.token_hex(4)
        self._runs: dict[str, _RunLog] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._lock_file: io.TextIOWrapper | None = None
        self._closing = False
        self._retry_s = 0.0
        self.rows_waiting = 0
        """Rows in memory."""
        self.rows_written = 0
        """Rows in files, since the start."""
        self.parts_written = 0
        """Files, since the start."""
        self.write_errors = 0
        """Attempts to write a file that failed."""
        self.refused = 0
        """Calls of `append` that were refused."""

    def start(self) -> dict[str, Counts]:
        """Lock the directory and start the writer thread; returns the counts of each run in it.

        Raises ConfigError when another service writes there, or the directory cannot be used.
        """
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._lock_file = (self.directory / ".lock").open("w")
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            runs = [path for path in sorted(self.directory.iterdir()) if path.is_dir() and is_run_name(path.name)]
            counts = {path.name: self._load_run(path) for path in runs}
        except BlockingIOError as error:
            raise ConfigError(f"verdict_log.directory: another service writes to {self.directory}") from error
        except OSError as error:
            cause = error.strerror or type(error).__name__
            raise ConfigError(f"verdict_log.directory: {self.directory} cannot be used ({cause})") from error
        self._thread = threading.Thread(target=self._write_all, name="verdict-log", daemon=True)
        self._thread.start()
        return counts

    def append(self, run: str, rows: Sequence[Row]) -> bool:
        """Take rows for a run; False, with none taken, when too many wait for the disk or the log is
        closed."""
        with self._changed:
            # Rows that exceed the whole buffer are taken when nothing else waits.
            room = self.rows_waiting + len(rows) <= max(self._config.buffer_rows, len(rows))
            if self._closing or self._thread is None or not self._thread.is_alive() or not room:
                self.refused += 1
                return False
            log = self._runs.setdefault(run, _RunLog())
            most = self._config.rows_per_part
            rest = list(rows)
            while rest:
                part = self._open_part(log)
                room_left = most - len(part.rows)
                part.rows += rest[:room_left]
                rest = rest[room_left:]
                part.sealed = len(part.rows) >= most
            self.rows_waiting += len(rows)
            self._changed.notify()
            return True

    def parts(self, run: str) -> tuple[list[PartName], list[tuple[PartName, list[Row]]]]:
        """Names of a run's finished files, and the rows that still wait for theirs, both in order."""
        with self._changed:
            log = self._runs.get(run, _RunLog())
            return list(log.finished), [(part.name, list(part.rows)) for part in log.waiting]

    def close(self, deadline_s: float) -> int:
        """Write what waits and unlock the directory; returns the number of rows that were not written in time."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(deadline_s)
        if self._lock_file is not None:
            self._lock_file.close()
            self._lock_file = None
        if self.rows_waiting:
            _log.error("%d rows of the verdict log could not be written and are lost", self.rows_waiting)
        return self.rows_waiting

    def _load_run(self, directory: Path) -> Counts:
        log = self._runs.setdefault(directory.name, _RunLog(finished_parts(directory)))
        counts = Counts()
        for name in log.finished:
            counts.add(read_counts(directory, name))
        return counts

    def _open_part(self, log: _RunLog) -> Waiting:
        if log.waiting and not log.waiting[-1].sealed:
            return log.waiting[-1]
        before = [part.name.number for part in log.waiting] + [name.number for name in log.finished[-1:]]
        part = Waiting(PartName(max(before, default=0) + 1, self._writer), time.monotonic())
        log.waiting.append(part)
        return part

    def _write_all(self) -> None:
        while (due := self._next_due()) is not None:
            run, part = due
            try:
                write_part(self.directory / run, part.name, part.rows)
            except OSError as error:
                self.write_errors += 1
                self._retry_s = min(max(2 * self._retry_s, RETRY_S), LONGEST_RETRY_S)
                _log.error("verdict log: %s cannot be written (%s); trying again", part.name.file, error.strerror)
                continue
            self._retry_s = 0.0
            with self._changed:
                log = self._runs[run]
                log.waiting.remove(part)
                log.finished.append(part.name)
                self.rows_waiting -= len(part.rows)
                self.rows_written += len(part.rows)
                self.parts_written += 1

    def _next_due(self) -> tuple[str, Waiting] | None:
        """Wait for the next file to write, sealed; None when the log is closed and nothing waits or the disk fails."""
        with self._changed:
            if self._retry_s and not self._closing:
                self._changed.wait_for(lambda: self._closing, self._retry_s)
            elif self._retry_s:
                return None
            while True:
                oldest = sorted((log.waiting[0].since, run) for run, log in self._runs.items() if log.waiting)
                for _, run in oldest:
                    part = self._runs[run].waiting[0]
                    if self._is_due(part):
                        part.sealed = True  # a row added during the write would be missing in the file
                        return run, part
                if self._closing:
                    return None
                until_s = oldest[0][0] + self._config.flush_s - time.monotonic() if oldest else None
                self._changed.wait(until_s)

    def _is_due(self, part: Waiting) -> bool:
        return self._closing or part.sealed or time.monotonic() - part.since >= self._config.flush_s
