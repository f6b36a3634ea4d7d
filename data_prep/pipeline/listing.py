"""Listing: the samples that a dataset has for one file, checked before any image is opened."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from data_prep.pipeline.issues import Kind, Problem
from data_prep.readers.base import Dataset, Sample
from data_prep.selection.subsets import first_by_id
from speciarl.answer import is_abstention, normalise
from speciarl.errors import DataPrepError

ABSENT = frozenset({"nan", "na"})
"""What programs write for a name that is missing."""


@dataclass(frozen=True, slots=True)
class SplitCount:
    """Size of a split as found and as published; None where nobody says."""

    found: int
    published: int | None
    classes: int
    published_classes: int | None


@dataclass(slots=True)
class Listing:
    """The usable samples of the splits that go into one file, and what is wrong with the rest."""

    samples: list[Sample] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    counts: dict[str, SplitCount] = field(default_factory=dict)


def read(
    dataset: Dataset,
    root: Path,
    splits: Sequence[str],
    source: str,
    file: str,
    transform: Callable[[Sample], Sample] = lambda sample: sample,
) -> Listing:
    """The listing of some splits of a dataset.

    Args:
        source: the dataset's name in this build.
        file: the file that the samples are for.
        transform: applied to each sample as it is read, e.g. to move its image out of memory.

    Raises DataPrepError for missing or malformed files.
    """
    listing = Listing()
    about = dataset.about
    labelled: list[Sample] = []
    for split in splits:
        found = [transform(_named(sample, source, about.name)) for sample in dataset.samples(root, split)]
        classes = len({sample.class_key for sample in found})
        count = SplitCount(len(found), about.published_counts.get(split), classes, about.published_classes)
        listing.counts[split] = count
        listing.problems += _count_problems(count, source, file, split)
        if left_out := getattr(dataset, "left_out", None):
            listing.problems += [
                Problem(Kind.COUNT if left.is_class else Kind.IGNORED, source, file, "", left.where, left.detail)
                for left in left_out(root, split)
            ]
        for sample in found:
            refusing = next((name for name in sample.label_path if _declines(name)), None)
            if refusing is not None:
                detail = f"{refusing!r} is what a model says that does not know; rename the class {sample.class_key!r}"
                where = sample.picture.where
                listing.problems.append(Problem(Kind.ABSTENTION, source, file, sample.id, where, detail))
            elif sample.label_path and all(map(_has_content, (sample.label, *sample.label_path))):
                labelled.append(sample)
            else:
                path = " > ".join(sample.label_path)
                detail = f"label {sample.label!r}, path {path!r}; name the class {sample.class_key!r}"
                where = sample.picture.where
                listing.problems.append(Problem(Kind.EMPTY_LABEL, source, file, sample.id, where, detail))
    kept, again = first_by_id((sample.id, sample) for sample in labelled)
    listing.samples = list(kept.values())
    listing.problems += [
        Problem(Kind.DUPLICATE_ID, source, file, key, kept[key].picture.where, f"{key} is listed again")
        for key in again
    ]
    return listing


@functools.lru_cache(maxsize=4096)
def _declines(name: str) -> bool:
    """Whether a name reads as an abstention, so that a model which declines to answer would be right."""
    form = normalise(name)
    return bool(form) and (is_abstention(name) or form in ABSENT)


@functools.lru_cache(maxsize=4096)
def _has_content(name: str) -> bool:
    """Whether the normal form of a name, with which answers are compared, is not empty."""
    return bool(normalise(name))


def _named(sample: Sample, source: str, dataset: str) -> Sample:
    """The sample with an id that is unique in the build: prefixed where the dataset's name is not its reader's.

    Raises DataPrepError for names that are not UTF-8, as file names may be, since a table's text has to be.
    """
    for name in (sample.picture.where, sample.id, *sample.label_path):
        if not name.isascii() and any("\ud800" <= character <= "\udfff" for character in name):
            shown = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
            raise DataPrepError(f"{source}: the name {shown!r} is not UTF-8; rename it, for example with convmv")
    return sample if source == dataset else replace(sample, id=f"{source}/{sample.id}")


def overlap(first: Listing, second: Listing, source: str, file: str) -> list[Problem]:
    """Samples of `second` that are in `first` too: what is tested must not be trained on."""
    ids = {sample.id for sample in first.samples}
    return [
        Problem(Kind.IN_TWO_FILES, source, file, sample.id, sample.picture.where, "is in the split of another file too")
        for sample in second.samples
        if sample.id in ids
    ]


def _count_problems(count: SplitCount, source: str, file: str, split: str) -> list[Problem]:
    found = []
    if count.published is not None and count.found != count.published:
        found.append(f"{count.found} images, published are {count.published}")
    elif not count.found:
        found.append("there are no images")
    if count.published_classes is not None and count.classes != count.published_classes:
        found.append(f"{count.classes} classes, published are {count.published_classes}")
    return [Problem(Kind.COUNT, source, file, "", f"split {split}", detail) for detail in found]
