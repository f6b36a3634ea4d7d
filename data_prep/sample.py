"""One labelled image of a dataset, before anything is chosen, decoded or written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from data_prep.errors import DataPrepError


@dataclass(frozen=True, slots=True)
class Picture:
    """An encoded image (JPEG, PNG, …): a file that is read when it is needed, or bytes at hand."""

    where: str
    """For messages: a path inside the dataset, or a row of a table."""
    path: Path | None = None
    data: bytes | None = None

    def read(self) -> bytes:
        """The encoded bytes. Raises DataPrepError naming the file when it cannot be read."""
        if self.data is not None:
            return self.data
        if self.path is None:
            raise DataPrepError(f"{self.where}: there is neither a file nor bytes")
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise DataPrepError(f"{self.path}: {error.strerror}; unpack the archive again") from error


@dataclass(frozen=True, slots=True)
class Sample:
    """One image with what its dataset says of it."""

    id: str
    """Unique within the dataset and the same on every machine, e.g. ``cub200/001.Black_footed_Albatross/0001.jpg``."""
    picture: Picture
    label: str
    """Readable name of the finest class: the ground truth."""
    label_path: tuple[str, ...]
    """From the broadest to the finest name; ends with `label`. One entry where the dataset has no hierarchy."""
    split: str
    class_key: str
    """The class as the dataset itself writes it, e.g. ``001.Black_footed_Albatross``."""
