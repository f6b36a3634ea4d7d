"""Atomic files: an interruption leaves the old file or the new one, never half of one."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from speciarl.errors import DataPrepError


@contextlib.contextmanager
def replacement(file: Path) -> Iterator[Path]:
    """Path of a draft beside `file`, to be written; it takes the file's place at the end, or is removed."""
    draft = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        yield draft
        os.replace(draft, file)
    finally:
        draft.unlink(missing_ok=True)


def write_bytes(file: Path, content: bytes) -> None:
    """Replace ``file`` with ``content``. Raises ``OSError`` when the folder cannot be written."""
    with replacement(file) as draft:
        draft.write_bytes(content)


class Drafts:
    """Drafts beside the files they will become. Leaving the ``with`` block without `publish` removes them.

    A draft is locked while it is written: a second build of the same file is refused, and one that a killed build
    left is taken over.
    """

    def __init__(self) -> None:
        self._handles: dict[Path, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file, handle in self._handles.items():
            _draft(file).unlink(missing_ok=True)
            os.close(handle)
        self._handles.clear()

    def open(self, file: Path) -> Path:
        """Path of an empty draft of `file`. Raises DataPrepError when another process writes it, OSError otherwise."""
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = _draft(file)
        handle = os.open(draft, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(handle)
            raise DataPrepError(
                f"{file} is being written by another build; wait for it or choose another out="
            ) from error
        os.ftruncate(handle, 0)
        self._handles[file] = handle
        return draft

    def write(self, file: Path, content: bytes) -> None:
        """A draft with this content."""
        self.open(file).write_bytes(content)

    def publish(self) -> None:
        """Put every draft in its file's place, in the order in which they were opened."""
        for file, handle in list(self._handles.items()):
            os.fsync(handle)
            os.replace(_draft(file), file)
            os.close(handle)
            del self._handles[file]


def _draft(file: Path) -> Path:
    return file.with_name(f".{file.name}.draft")
