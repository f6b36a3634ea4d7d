"""Dataset interface: archives, splits and samples of a dataset."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from speciarl.errors import DataPrepError


@dataclass(frozen=True, slots=True)
class Picture:
    """An encoded image (JPEG, PNG, …): a file that is read on demand, or bytes in memory."""

    where: str
    """Name in messages: a path inside the dataset, or a row of a table."""
    path: Path | None = None
    data: bytes | None = None
    remedy: str = "unpack the archive again"
    """What to do when the file cannot be read."""

    def read(self) -> bytes:
        """The encoded bytes. Raises DataPrepError naming the file when it cannot be read."""
        if self.data is not None:
            return self.data
        if self.path is None:
            raise DataPrepError(f"{self.where}: there is neither a file nor bytes")
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise DataPrepError(f"{self.path}: {error.strerror}; {self.remedy}") from error


@dataclass(frozen=True, slots=True)
class Sample:
    """One image with its label, its place in the hierarchy and its split."""

    id: str
    """Id, unique within the dataset and the same on every machine, e.g. ``cub200/001.Black_footed_Albatross/1.jpg``."""
    picture: Picture
    label: str
    """Readable name of the finest class: the ground truth."""
    label_path: tuple[str, ...]
    """Names from the broadest to the finest; ends with `label`. One entry where the dataset has no hierarchy."""
    split: str
    class_key: str
    """The class as the dataset itself writes it, e.g. ``001.Black_footed_Albatross``."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What a reader passes over: files that are no pictures, or a class without any."""

    where: str
    """A path in the dataset."""
    detail: str
    is_class: bool
    """Whether a whole class is missing, which ends a build unless the user allows it."""


@dataclass(frozen=True, slots=True)
class Archive:
    """A file to download and perhaps unpack."""

    url: str
    file_name: str
    md5: str | None = None
    """As the dataset's home or torchvision publishes it; None where nobody does."""
    sha256: str | None = None
    size_bytes: int | None = None
    """As published; None where nobody says it."""
    unpack: bool = True
    inner: tuple[str, ...] = ()
    """Archives inside this one that are unpacked too, by their path in it."""
    witness: str = ""
    """A path that exists once the archive is unpacked, e.g. ``CUB_200_2011/images.txt``; also by hand."""


@dataclass(frozen=True, slots=True)
class About:
    """Facts of a dataset, shown by ``list`` and written into every parquet file."""

    name: str
    """Key on the command line, in ``data_source`` and in recipe names."""
    title: str
    version: str
    licence: str
    homepage: str
    archives: tuple[Archive, ...]
    splits: tuple[str, ...]
    """Splits that can be asked for; empty where the data decide (the user's own)."""
    published_counts: Mapping[str, int]
    """Images per split as published; empty where a dataset is the user's own."""
    published_classes: int | None
    levels: tuple[str, ...]
    """Names of the levels of `Sample.label_path`, broadest first, e.g. ("manufacturer", "family", "variant").

    Empty where the data decide.
    """


class Dataset(Protocol):
    """A reader of one dataset in its published layout. Reading is lazy and needs no network."""

    @property
    def about(self) -> About:
        """Facts of the dataset."""
        ...

    def samples(self, root: Path, split: str) -> Iterator[Sample]:
        """Every sample of a split, in the published order, from the unpacked files in `root`.

        Raises DataPrepError with one line (file, row, remedy) for a missing or malformed file and for an unknown
        split. Does not open the images.
        """
        ...
