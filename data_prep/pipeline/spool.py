"""Spool: keeps on disk the image bytes that readers of tables hand over, which would fill the memory."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from data_prep.readers.base import Picture, Sample
from speciarl.errors import DataPrepError


@dataclass(frozen=True, slots=True)
class SpooledPicture(Picture):
    """Picture whose bytes lie in a spool file."""

    handle: int = -1
    offset: int = 0
    size: int = 0

    def read(self) -> bytes:
        """The encoded bytes; thread-safe. Raises DataPrepError when the file system fails."""
        # `pread` has no file position that threads would share.
        data = os.pread(self.handle, self.size, self.offset)
        if len(data) != self.size:
            raise DataPrepError(f"{self.where}: the temporary copy is cut short; is the disk full?")
        return data


class Spool:
    """Temporary file without a name, made for the first bytes; it vanishes with the process, even a killed one."""

    def __init__(self, folder: Path) -> None:
        """`folder`: where there is room for the images, such as the folder that is written to."""
        self._folder = folder
        self._file: BinaryIO | None = None
        self._end = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def store(self, sample: Sample) -> Sample:
        """The sample with its image bytes moved from memory to the spool. Raises OSError when the disk is full."""
        data = sample.picture.data
        if data is None:
            return sample
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115 (closed by __exit__)
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]
        picture = SpooledPicture(sample.picture.where, handle=self._file.fileno(), offset=self._end, size=len(data))
        self._end += len(data)
        return replace(sample, picture=picture)
