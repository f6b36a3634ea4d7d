"""HTTP download that is resumed after an interruption."""

from __future__ import annotations

import fcntl
import hashlib
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from data_prep.readers.base import Archive
from speciarl.errors import DataPrepError
from speciarl.utils.atomic_files import write_bytes

if TYPE_CHECKING:
    import requests

CHUNK = 1 << 20
RANGE_NOT_SATISFIABLE = 416
TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Status codes of transient errors, after which another try may succeed."""

Progress = Callable[[int], object]
"""Called with the number of bytes received, or with a negative number when they had to be thrown away."""


@dataclass(frozen=True)
class Policy:
    """Retry policy: how often and how long to try."""

    tries: int = 6
    """Attempts in a row that gain no byte, after which the download fails."""
    connect_s: float = 20.0
    stall_s: float = 60.0
    """Longest wait for the next bytes."""
    total_s: float = 24 * 3600.0
    """Deadline for the whole file, pauses included."""
    pause_s: float = 1.0
    """Pause before the second try; doubles with each further one, with jitter, up to `longest_pause_s`."""
    longest_pause_s: float = 60.0


class _TransientError(Exception):
    """A failed attempt after which another may succeed; `after_s` is how long the server asked to wait."""

    def __init__(self, reason: str, after_s: float = 0.0) -> None:
        super().__init__(reason)
        self.after_s = after_s


def fault_of(archive: Archive, file: Path) -> str | None:
    """Fault of a finished file, by its checksum if one is published, else by its size; None if there is none."""
    for kind, expected in (("sha256", archive.sha256), ("md5", archive.md5)):
        if expected is not None:
            actual = _digest(file, kind)
            return None if actual == expected.lower() else f"its {kind} is {actual}, published is {expected}"
    size = file.stat().st_size
    if archive.size_bytes is not None and size != archive.size_bytes:
        return f"it has {size} bytes, published are {archive.size_bytes}"
    return None


def download(
    archive: Archive,
    folder: Path,
    policy: Policy | None = None,
    progress: Progress | None = None,
    say: Callable[[str], object] = lambda _: None,
) -> Path:
    """Fetch `archive.url` into `folder`; returns the finished and checked file.

    What came before an interruption stays in FILE.part and is continued with a Range request, if the server still has
    the same file (its ETag or date is kept in FILE.part.tag); a server that cannot do that sends all of it again. A
    file that is there already is checked, not fetched. Bytes are stored as sent, without undoing any encoding. `say`
    is called when an attempt failed and another follows.

    Raises DataPrepError with the URL and what to do by hand: offline, refused or missing (no retry), still failing
    after the policy's tries or time, wrong checksum or size (the file is then thrown away), another process at it.
    OSError when the folder cannot be written.
    """
    file = folder / archive.file_name
    if file.exists():
        if fault := fault_of(archive, file):
            raise DataPrepError(f"{file}: {fault}; delete it to fetch it again, or put the right file there")
        return file
    folder.mkdir(parents=True, exist_ok=True)
    with _exclusive(file) as part:
        if file.exists():
            _part(file).unlink(missing_ok=True)
            return file
        _Transfer(archive, part, policy or Policy(), progress or (lambda _: None), say).run()
        os.replace(_part(file), file)
        _tag(file).unlink(missing_ok=True)
    return file


def by_hand(archive: Archive, folder: Path) -> str:
    """The remedy for a failed download, for its message."""
    return f"fetch {archive.url} by hand, put it at {folder / archive.file_name} and run the command again"


class _Transfer:
    """Transfer of one file into an open .part file."""

    def __init__(
        self, archive: Archive, part: IO[bytes], policy: Policy, progress: Progress, say: Callable[[str], object]
    ) -> None:
        self.archive, self.part, self.policy, self.progress, self.say = archive, part, policy, progress, say
        self.folder = Path(part.name).parent
        self.tag_file = _tag(self.folder / archive.file_name)
        self.deadline = time.monotonic() + policy.total_s
        self.continued = False

    def run(self) -> None:
        """Receive and check the whole file. Raises DataPrepError."""
        self.progress(self._received())
        self._receive_all()
        fault = fault_of(self.archive, Path(self.part.name))
        if fault and self.continued:
            # The start may come from another version of the file or a broken run: once more, from nothing.
            self._restart()
            self._receive_all()
            fault = fault_of(self.archive, Path(self.part.name))
        if fault:
            self._restart()
            raise self._error(f"the file from there is not the published one: {fault}")

    def _receive_all(self) -> None:
        """Try until the file is complete. Raises DataPrepError past the policy's tries or time."""
        import requests

        failures = 0
        with requests.Session() as session:
            while True:
                before = self._received()
                try:
                    self._attempt(session)
                    return
                except _TransientError as error:
                    failures = 1 if self._received() > before else failures + 1
                    if failures >= self.policy.tries:
                        raise self._error(f"{error} (after {failures} tries)") from error
                    pause = min(self.policy.pause_s * 2 ** (failures - 1), self.policy.longest_pause_s)
                    pause = max(pause * random.uniform(0.5, 1.0), min(error.after_s, self.policy.longest_pause_s))
                    if time.monotonic() + pause > self.deadline:
                        raise self._error(f"{error}; not done within {self.policy.total_s:g} s") from error
                    self.say(f"{self.archive.file_name}: {error}; trying again in {pause:.0f} s")
                    time.sleep(pause)

    def _attempt(self, session: requests.Session) -> None:
        """One request. Raises _TransientError when another may succeed, DataPrepError when none will."""
        import requests
        from urllib3.exceptions import HTTPError

        received = self._received()
        headers = {"Accept-Encoding": "identity"}  # ranges and checksums are of the file, not of a compressed copy
        # Without a tag or a checksum nobody could tell whether both halves are of one version.
        if received and not (tag := self._tag()) and not self._checkable():
            received = self._restart()
        elif received:
            headers |= {"Range": f"bytes={received}-"} | ({"If-Range": tag} if tag else {})
        left = max(self.deadline - time.monotonic(), 0.001)
        timeout = (min(self.policy.connect_s, left), min(self.policy.stall_s, left))
        wrong = (
            requests.exceptions.InvalidURL,
            requests.exceptions.MissingSchema,
            requests.exceptions.InvalidSchema,
            requests.exceptions.TooManyRedirects,
            requests.exceptions.SSLError,
        )
        try:
            with session.get(self.archive.url, headers=headers, stream=True, timeout=timeout) as response:
                self._receive_body(response, received)
        except wrong as error:
            raise self._error(f"cannot be fetched ({_root_cause(error)})") from error
        except requests.exceptions.Timeout as error:
            raise _TransientError(f"no answer in time ({_root_cause(error)})") from error
        except requests.exceptions.ConnectionError as error:
            raise _TransientError(f"no connection ({_root_cause(error)}); is this machine offline?") from error
        except (requests.exceptions.RequestException, HTTPError) as error:
            raise _TransientError(f"the transfer broke off ({_root_cause(error)})") from error

    def _receive_body(self, response: requests.Response, received: int) -> None:
        """Store the body of a response behind the `received` bytes."""
        status = response.status_code
        if status == RANGE_NOT_SATISFIABLE and received:
            # All of it may be there already, after a kill between the last byte and the renaming.
            total = re.fullmatch(r"bytes \*/(\d+)", response.headers.get("Content-Range", ""))
            if total and int(total[1]) == received:
                self.continued = True
                return
            self._restart()
            raise _TransientError("what was received before does not fit the file")
        if status in TRANSIENT_STATUS:
            after = response.headers.get("Retry-After", "")
            raise _TransientError(f"the server answers {status}", float(after) if after.isdigit() else 0.0)
        if status not in (200, 206):
            raise self._error(f"the server answers {status} {response.reason}")
        end: int | None
        if status == 206:
            span = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", response.headers.get("Content-Range", ""))
            if not span or int(span[1]) != received:
                self._restart()
                raise _TransientError("the server sent another part than was asked for")
            self.continued = True
            end = int(span[2]) + 1
        else:
            received = self._restart()  # 200: the server sends all of it, whatever range was asked for
            length = response.headers.get("Content-Length", "")
            end = int(length) if length.isdigit() else self.archive.size_bytes
        self._save_tag(response)
        for chunk in self._chunks(response):
            self.part.write(chunk)
            self.progress(len(chunk))
        self.part.flush()
        os.fsync(self.part.fileno())
        if end is not None and self._received() < end:
            raise _TransientError(f"the body ended after {self._received()} of {end} bytes")

    def _chunks(self, response: requests.Response) -> Iterator[bytes]:
        # read1 returns what one receive brought, so that the deadline is looked at even when bytes only drip.
        while chunk := response.raw.read1(CHUNK, decode_content=False):
            yield chunk
            if time.monotonic() > self.deadline:
                self.part.flush()
                raise self._error(f"not done within {self.policy.total_s:g} s; run the command again to go on")

    def _received(self) -> int:
        self.part.flush()
        return self.part.seek(0, os.SEEK_END)

    def _restart(self) -> int:
        """Throw away what was received."""
        self.progress(-self._received())
        self.part.seek(0)
        self.part.truncate()
        self.tag_file.unlink(missing_ok=True)
        self.continued = False
        return 0

    def _checkable(self) -> bool:
        return bool(self.archive.md5 or self.archive.sha256)

    def _tag(self) -> str:
        return self.tag_file.read_text(encoding="latin-1") if self.tag_file.exists() else ""

    def _save_tag(self, response: requests.Response) -> None:
        """Save what identifies this version of the file: its strong ETag, else its date."""
        tag = response.headers.get("ETag", "")
        tag = response.headers.get("Last-Modified", "") if not tag or tag.startswith("W/") else tag
        if tag:
            write_bytes(self.tag_file, tag.encode("latin-1", "replace"))

    def _error(self, reason: str) -> DataPrepError:
        return DataPrepError(f"{self.archive.url}: {reason}; {by_hand(self.archive, self.folder)}")


def _part(file: Path) -> Path:
    return file.with_name(f"{file.name}.part")


def _tag(file: Path) -> Path:
    return file.with_name(f"{file.name}.part.tag")


@contextmanager
def _exclusive(file: Path) -> Iterator[IO[bytes]]:
    """The .part file, open for reading and appending, with a lock against a second process."""
    with _part(file).open("a+b") as part:
        try:
            fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataPrepError(f"{part.name}: another process is fetching this file; wait for it") from error
        yield part


def _digest(file: Path, kind: str) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()


def _root_cause(error: BaseException) -> str:
    """The innermost error of requests' and urllib3's nesting, on one line."""
    while True:
        inner = getattr(error, "reason", None) or error.__cause__ or next(iter(error.args), None)
        if not isinstance(inner, BaseException) or inner is error:
            break
        error = inner
    text = " ".join(str(error).split())
    return re.sub(r"^<[^>]*>: |^\w*\([^)]*\): ", "", text) or type(error).__name__
