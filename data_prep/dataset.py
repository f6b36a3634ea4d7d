"""What every dataset offers: where its archives come from, which splits it has, and its samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from data_prep.sample import Sample


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
    """A path that is there once it is unpacked, e.g. ``CUB_200_2011/images.txt``; finds a copy unpacked by hand."""


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
    """Those that can be asked for; empty where the data decide (the user's own)."""
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
