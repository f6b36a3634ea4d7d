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
def replacing(file: Path) -> Iterator[Path]:
    """Path of a temporary neighbour that takes the place of `file` when the block ends, and is removed if it raises.

    The content is on the disk before the name is, so that a machine that loses power leaves no empty file either.
    Raises OSError when the folder cannot be written.
    """
    draft = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        yield draft
        with draft.open("rb+") as written:
            os.fsync(written)
        os.replace(draft, file)
    finally:
        draft.unlink(missing_ok=True)


def write_bytes(file: Path, content: bytes) -> None:
    """Replace `file` with `content`. Raises OSError when the folder cannot be written."""
    with replacing(file) as draft:
        draft.write_bytes(content)


def write_text(file: Path, content: str) -> None:
    """Replace `file` with `content` in UTF-8. Raises OSError when the folder cannot be written."""
    write_bytes(file, content.encode())


class Drafts:
    """Drafts of files, beside the files that they will replace; removed when the ``with`` block ends without `publish`.

    A draft is locked while it is written: a second build of the same file is refused, and the draft of a killed build
    is taken over.
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
        os.ftruncate(handle, 0)  # what a killed build left
        self._handles[file] = handle
        return draft

    def write(self, file: Path, content: bytes) -> None:
        """Write a whole draft. Raises as `open` does."""
        self.open(file).write_bytes(content)

    def publish(self) -> None:
        """Put every draft in its file's place, in the order in which they were opened."""
        for file, handle in list(self._handles.items()):
            os.fsync(handle)  # before the rename: a crash must not leave a new name with old or no content
            os.replace(_draft(file), file)
            os.close(handle)
            del self._handles[file]


def _draft(file: Path) -> Path:
    return file.with_name(f".{file.name}.draft")
