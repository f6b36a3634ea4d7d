"""Duplicates: equal images within a file, and in train and a test file at once.

Two kinds of equality: the same **bytes** (a copied file), or the same **pixels** (size and RGB values once decoded and
turned upright: also a lossless copy in another format or with other metadata). Neither finds images that are only
similar, such as another size or another JPEG quality of the same photograph.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from data_prep.images.encode import pixels
from data_prep.readers.base import Sample
from speciarl.errors import DataPrepError

By = Literal["bytes", "pixels"]


@dataclass(frozen=True, slots=True)
class Equal:
    """A sample whose image is equal to that of another, `other_id` in `other_file`."""

    file: str
    sample_id: str
    other_file: str
    other_id: str
    labels_differ: bool


def fingerprint(sample: Sample, by: By) -> str | None:
    """SHA-256 of the image's bytes or pixels; None when it cannot be read, which the build reports by itself."""
    try:
        data = sample.picture.read()
        return hashlib.sha256(data if by == "bytes" else pixels(data)).hexdigest()
    except DataPrepError:
        return None


def equal_images(
    files: Mapping[str, Sequence[Sample]], fingerprint_of: Callable[[Sample], str | None], protected: Sequence[str]
) -> list[Equal]:
    """Samples whose image is that of an earlier sample.

    Args:
        files: samples by file name.
        fingerprint_of: equal for equal images; None is equal to nothing.
        protected: the test files. They come first, so that of two copies in train and test the one in train is listed.

    Samples of a file are compared in the order of their ids, so the order of a listing decides nothing.
    """
    first: dict[str, tuple[str, Sample]] = {}
    found = []
    for file in sorted(files, key=lambda name: (name not in protected, name)):
        for sample in sorted(files[file], key=lambda sample: sample.id):
            mark = fingerprint_of(sample)
            if mark is None:
                continue
            other_file, other = first.setdefault(mark, (file, sample))
            if other is not sample:
                found.append(Equal(file, sample.id, other_file, other.id, sample.label != other.label))
    return found


def without(samples: Sequence[Sample], file: str, found: Sequence[Equal]) -> list[Sample]:
    """The samples of a file that repeat no image."""
    gone = {equal.sample_id for equal in found if equal.file == file}
    return [sample for sample in samples if sample.id not in gone]
