"""Selection plan: the samples of each file, in their order, chosen from all that the datasets list."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from data_prep.config import TRAIN, BuildConfig, Subset
from data_prep.images import dedup
from data_prep.readers.base import Sample
from data_prep.selection import subsets
from speciarl.errors import DataPrepError

Chosen = dict[str, list[tuple[str, Sample]]]
"""File -> (dataset, sample) of each row."""
FingerprintAll = Callable[[Sequence[Sample]], Mapping[str, str | None]]
"""Image fingerprints by sample id."""


@dataclass(slots=True)
class Choice:
    """The chosen rows, with what the report says about the choice."""

    files: Chosen = field(default_factory=dict)
    equal_images: list[dedup.Equal] = field(default_factory=list)
    few_shot_short: dict[str, dict[str, int]] = field(default_factory=dict)


def choose(
    config: BuildConfig, listed: Mapping[str, Mapping[str, Sequence[Sample]]], fingerprints: FingerprintAll
) -> Choice:
    """The rows of each file, after range, classes, dedup, few-shot, percent or count, and order, applied in this order.

    `listed`: all samples by file and dataset.

    Raises DataPrepError for an unknown class and for more samples than there are.
    """
    _check_classes(config, listed)
    pools: dict[str, dict[str, list[Sample]]] = {}
    for file, sources in listed.items():
        part = config.subset_of(file)
        pools[file] = {
            name: subsets.index_range(samples, part.start, part.stop, part.ranges) for name, samples in sources.items()
        }
    for file, sources in pools.items():
        pools[file] = {name: _of_classes(config, samples) for name, samples in sources.items()}
    choice = Choice()
    if config.dedup.by != "none":
        _dedup(config, pools, fingerprints, choice)
    for file, sources in pools.items():
        choice.files[file] = _sized(config, file, sources, choice)
    return choice


def _check_classes(config: BuildConfig, listed: Mapping[str, Mapping[str, Sequence[Sample]]]) -> None:
    everything = [sample for sources in listed.values() for samples in sources.values() for sample in samples]
    subsets.of_classes(everything, config.select.include, config.select.exclude)


def _of_classes(config: BuildConfig, samples: Sequence[Sample]) -> list[Sample]:
    # In a mix, a class of one dataset is unknown to the others; that it is known to any was checked before.
    known = {name for sample in samples for name in subsets.names(sample)}
    include = [name for name in config.select.include if name in known]
    exclude = [name for name in config.select.exclude if name in known]
    if config.select.include and not include:
        return []
    return subsets.of_classes(samples, include, exclude)


def _dedup(
    config: BuildConfig, pools: dict[str, dict[str, list[Sample]]], fingerprints: FingerprintAll, choice: Choice
) -> None:
    merged = {file: [sample for samples in sources.values() for sample in samples] for file, sources in pools.items()}
    marks = fingerprints([sample for samples in merged.values() for sample in samples])
    choice.equal_images = dedup.equal_images(
        merged, lambda sample: marks[sample.id], protected=[file for file in merged if file != TRAIN]
    )
    if config.dedup.action == "drop" and TRAIN in pools:
        pools[TRAIN] = {
            name: dedup.without(samples, TRAIN, choice.equal_images) for name, samples in pools[TRAIN].items()
        }


def _sized(
    config: BuildConfig, file: str, sources: Mapping[str, list[Sample]], choice: Choice
) -> list[tuple[str, Sample]]:
    part = config.subset_of(file)
    pools = dict(sources)
    if part.per_class is not None:
        sizes = Counter(f"{name}/{sample.class_key}" for name, samples in pools.items() for sample in samples)
        choice.few_shot_short[file] = {key: size for key, size in sizes.items() if size < part.per_class}
        pools = {name: subsets.few_shot(samples, part.per_class, config.seed) for name, samples in pools.items()}
    if part.percent is not None:
        pools = {
            name: _random(samples, subsets.percent_count(len(samples), part.percent), config.seed, part)
            for name, samples in pools.items()
        }
    sizes_now = {name: len(samples) for name, samples in pools.items()}
    counts = {name: config.count_of(name, file) for name in pools}
    weights = {name: config.sources[name].weight for name in pools}
    try:
        wanted = subsets.quotas(sizes_now, counts, weights, part.count)
    except DataPrepError as error:
        raise DataPrepError(f"{file}: {error}") from error
    rows = [
        (name, sample)
        for name, samples in pools.items()
        for sample in _random(samples, wanted[name], config.seed, part)
    ]
    if not rows:
        raise DataPrepError(f"{file}: no sample is left; widen subset and select")
    if config.order == "shuffled":
        source_of = {sample.id: name for name, sample in rows}
        return [(source_of[sample.id], sample) for sample in subsets.shuffled([s for _, s in rows], config.seed)]
    return rows


def _random(samples: Sequence[Sample], count: int, seed: int, part: Subset) -> list[Sample]:
    if part.draw == "python":
        return subsets.by_place(samples, count, seed)
    return subsets.subset(samples, count, seed, part.stratified)
