"""Subsets of samples, by pure functions: a seed takes the same samples on any machine.

Except for index ranges and `by_place`, which count along the published order, nothing here depends on the order of its
input; the result keeps that order.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TypeVar

from data_prep.readers.base import Sample
from data_prep.selection.seeded import draw, shares
from speciarl.errors import DataPrepError

T = TypeVar("T")


def names(sample: Sample) -> set[str]:
    """Names by which a sample's class may be selected."""
    return {sample.label, sample.class_key, *sample.label_path}


def index_range(
    samples: Sequence[Sample], start: int | None, stop: int | None, ranges: Sequence[tuple[int, int]] = ()
) -> list[Sample]:
    """Samples number `start` up to, not including, `stop` of the published order; None leaves that end open.

    With `ranges`, those from the first to the last number of any of them, each once and in the published order.
    """
    if not ranges:
        return list(samples[start:stop])
    return [sample for number, sample in enumerate(samples) if any(first <= number <= last for first, last in ranges)]


def of_classes(samples: Sequence[Sample], include: Collection[str], exclude: Collection[str]) -> list[Sample]:
    """Samples of the included classes (all when empty) without the excluded ones.

    A class is meant by its label, its key, or any name above it (``Boeing`` means all its variants). Raises
    DataPrepError for a name that no sample has.
    """
    known = {name for sample in samples for name in names(sample)}
    for name in (*include, *exclude):
        if name not in known:
            raise DataPrepError(f"there is no class {name!r} (a label, a class key or a name above it)")
    wanted, unwanted = set(include), set(exclude)
    return [sample for sample in samples if (not wanted or wanted & names(sample)) and not unwanted & names(sample)]


def few_shot(samples: Sequence[Sample], per_class: int, seed: int) -> list[Sample]:
    """At most `per_class` random samples of each class."""
    limits = dict.fromkeys({sample.class_key for sample in samples}, per_class)
    return _take_per_class(samples, limits, seed, "few-shot")


def subset(samples: Sequence[Sample], count: int, seed: int, stratified: bool = False) -> list[Sample]:
    """`count` random samples; stratified, each class keeps its share of them (to the nearest whole sample).

    A smaller subset of the same seed lies within a larger one unless stratified. Raises DataPrepError when there are
    fewer samples.
    """
    _refuse_too_few(samples, count)
    if not stratified:
        kept = {sample.id for sample in _ranked(samples, seed, "subset")[:count]}
        return [sample for sample in samples if sample.id in kept]
    sizes: dict[str, float] = {}
    for sample in samples:
        sizes[sample.class_key] = sizes.get(sample.class_key, 0) + 1
    return _take_per_class(samples, shares(count, sizes) if samples else {}, seed, "subset")


def by_place(samples: Sequence[Sample], count: int, seed: int) -> list[Sample]:
    """`count` random samples, drawn with Python's own generator by their place in the published order.

    What ``random.Random(seed).sample(range(n), count)`` draws, the same in every Python since 3.2. Raises
    DataPrepError when there are fewer samples.
    """
    _refuse_too_few(samples, count)
    places = set(random.Random(seed).sample(range(len(samples)), count))
    return [sample for place, sample in enumerate(samples) if place in places]


def percent_count(size: int, percent: float) -> int:
    """Number of samples that are `percent` of `size`; half a sample is rounded up."""
    return int(size * percent / 100 + 0.5)


def quotas(
    sizes: Mapping[str, int], counts: Mapping[str, int | None], weights: Mapping[str, float], total: int | None
) -> dict[str, int]:
    """Number of samples of each dataset of a mix: its count, else its share by weight of what is left of `total`.

    Without a total, a dataset without a count gives all it has. Raises DataPrepError when a dataset has too few.
    """
    fixed = {name: count for name in sizes if (count := counts.get(name)) is not None}
    open_ended = [name for name in sizes if name not in fixed]
    if total is None:
        wanted = fixed | {name: sizes[name] for name in open_ended}
    else:
        left = total - sum(fixed.values())
        if left < 0 or (left > 0 and not open_ended):
            raise DataPrepError(f"the counts of the datasets sum to {sum(fixed.values())}, the total is {total}")
        wanted = fixed | (shares(left, {name: weights[name] for name in open_ended}) if open_ended else {})
    for name, count in wanted.items():
        if count > sizes[name]:
            raise DataPrepError(
                f"{count} samples are wanted of {name}, which has {sizes[name]}; lower its count or weight"
            )
    return {name: wanted[name] for name in sizes}


def shuffled(samples: Sequence[Sample], seed: int) -> list[Sample]:
    """All samples in an order that depends on the seed and their ids alone."""
    return _ranked(samples, seed, "order")


def first_by_id(items: Iterable[tuple[str, T]]) -> tuple[dict[str, T], list[str]]:
    """The first item of every id, and the ids of those that came again."""
    kept: dict[str, T] = {}
    again = []
    for key, item in items:
        if key in kept:
            again.append(key)
        else:
            kept[key] = item
    return kept, again


def _refuse_too_few(samples: Sequence[Sample], count: int) -> None:
    if count > len(samples):
        raise DataPrepError(f"{count} samples are wanted of {len(samples)}; ask for fewer")


def _ranked(samples: Sequence[Sample], seed: int, purpose: str) -> list[Sample]:
    return sorted(samples, key=lambda sample: (draw(seed, purpose, sample.id), sample.id))


def _take_per_class(samples: Sequence[Sample], limits: Mapping[str, int], seed: int, purpose: str) -> list[Sample]:
    left = dict(limits)
    kept = set()
    for sample in _ranked(samples, seed, purpose):
        if left[sample.class_key] > 0:
            left[sample.class_key] -= 1
            kept.add(sample.id)
    return [sample for sample in samples if sample.id in kept]
