"""Which samples are chosen: by seed and id alone, the same on every machine."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.readers.base import Picture, Sample
from data_prep.selection import subsets
from data_prep.selection.seeded import choose, draw, shares
from speciarl.errors import DataPrepError


def sample(number: int, classes: int = 3) -> Sample:
    key = f"{number % classes:03d}.Class_{number % classes}"
    label = f"class {number % classes}"
    return Sample(f"set/{number:04d}.jpg", Picture("w", data=b""), label, ("things", label), "train", key)


def ids(samples: list[Sample]) -> list[int]:
    return [int(found.id[4:8]) for found in samples]


SAMPLES = [sample(number) for number in range(30)]
pools = st.lists(st.integers(0, 500), unique=True, max_size=60).map(lambda numbers: [sample(n) for n in numbers])
seeds = st.integers(-(2**31), 2**31)

GOLDEN_SUBSET = [2, 7, 13, 17, 25, 26]
GOLDEN_PLACES = [0, 3, 7, 8, 20, 23]
PAPER_ROWS = ([3, 4, 9, 12, 13, 14], [5985, 5987, 5988, 5989, 5992, 5993], 8971893)
GOLDEN_STRATIFIED = [2, 7, 12, 17, 18, 25]
GOLDEN_FEW_SHOT = [11, 24, 25]
GOLDEN_ORDER = [5, 4, 1, 2, 6, 3, 0, 7]
GOLDEN_DRAWS = [0.6420850993523853, 0.1490016474243524, 0.06541791990941404]
GOLDEN_CHOICES = ["b", "b", "b", "b", "a", "b", "b", "a"]


def test_golden_ids() -> None:
    """Written down once: another machine, Python or release must choose the same."""
    assert ids(subsets.subset(SAMPLES, 6, seed=42)) == GOLDEN_SUBSET
    assert ids(subsets.subset(SAMPLES, 6, seed=42, stratified=True)) == GOLDEN_STRATIFIED
    assert ids(subsets.by_place(SAMPLES, 6, seed=42)) == GOLDEN_PLACES
    assert ids(subsets.few_shot(SAMPLES, 1, seed=42)) == GOLDEN_FEW_SHOT
    assert ids(subsets.shuffled(SAMPLES[:8], seed=42)) == GOLDEN_ORDER
    assert [draw(42, "subset", f"set/{n:04d}.jpg") for n in range(3)] == GOLDEN_DRAWS
    assert [choose(42, "prompt", str(n), {"a": 1, "b": 3}) for n in range(8)] == GOLDEN_CHOICES


@given(pools, seeds, st.data())
def test_a_subset_has_the_size_and_does_not_depend_on_the_order(
    samples: list[Sample], seed: int, data: st.DataObject
) -> None:
    count = data.draw(st.integers(0, len(samples)))
    stratified = data.draw(st.booleans())
    mixed = data.draw(st.permutations(samples))
    chosen = subsets.subset(samples, count, seed, stratified)
    assert len(chosen) == count
    assert {s.id for s in subsets.subset(mixed, count, seed, stratified)} == {s.id for s in chosen}
    places = [samples.index(s) for s in chosen]
    assert places == sorted(places)


def test_the_papers_rows() -> None:
    """3,000 of CUB's 5,994; the first, last and sum of their places, written down once."""
    chosen = ids(subsets.by_place([sample(number) for number in range(5994)], 3000, seed=42))
    assert chosen == sorted(random.Random(42).sample(range(5994), 3000))
    assert (chosen[:6], chosen[-6:], sum(chosen)) == PAPER_ROWS


def test_more_places_than_there_are_are_refused() -> None:
    with pytest.raises(DataPrepError, match="31 samples are wanted of 30; ask for fewer"):
        subsets.by_place(SAMPLES, 31, seed=42)


@given(pools, seeds)
def test_a_smaller_subset_lies_within_a_larger_one(samples: list[Sample], seed: int) -> None:
    small, large = (subsets.subset(samples, len(samples) // part, seed) for part in (3, 2))
    assert {s.id for s in small} <= {s.id for s in large}


@given(pools, seeds, st.data())
def test_stratified_keeps_the_shares(samples: list[Sample], seed: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, len(samples)))
    before = Counter(s.class_key for s in samples)
    after = Counter(s.class_key for s in subsets.subset(samples, count, seed, stratified=True))
    for key, size in before.items():
        assert abs(after[key] - count * size / len(samples)) < 1


@given(pools, seeds, st.integers(1, 5))
def test_few_shot_takes_as_many_of_each_class_as_there_are(samples: list[Sample], seed: int, shots: int) -> None:
    before = Counter(s.class_key for s in samples)
    after = Counter(s.class_key for s in subsets.few_shot(samples, shots, seed))
    assert after == Counter({key: min(size, shots) for key, size in before.items()})


def test_seeds_differ() -> None:
    assert ids(subsets.subset(SAMPLES, 10, 1)) != ids(subsets.subset(SAMPLES, 10, 2))


def test_too_large_a_subset_is_refused() -> None:
    with pytest.raises(DataPrepError, match="31 samples are wanted of 30"):
        subsets.subset(SAMPLES, 31, 0)


def test_ranges_count_along_the_published_order() -> None:
    assert ids(subsets.index_range(SAMPLES, 5, 8)) == [5, 6, 7]
    assert ids(subsets.index_range(SAMPLES, None, 2)) == [0, 1]
    assert subsets.index_range(SAMPLES, 40, None) == []


@pytest.mark.parametrize("name", ["class 1", "001.Class_1"])
def test_classes_by_label_and_by_key(name: str) -> None:
    assert {s.label for s in subsets.of_classes(SAMPLES, [name], [])} == {"class 1"}
    assert {s.label for s in subsets.of_classes(SAMPLES, [], [name])} == {"class 0", "class 2"}


def test_a_name_above_means_all_below() -> None:
    assert subsets.of_classes(SAMPLES, ["things"], ["class 0"]) == [s for s in SAMPLES if s.label != "class 0"]


def test_an_unknown_class_is_named() -> None:
    with pytest.raises(DataPrepError, match="no class 'cluss 1'"):
        subsets.of_classes(SAMPLES, [], ["cluss 1"])


@pytest.mark.parametrize(("percent", "count"), [(10, 3), (5, 2), (100, 30), (1, 0)])
def test_percent(percent: float, count: int) -> None:
    assert subsets.percent_count(30, percent) == count


@given(st.integers(0, 1000), st.dictionaries(st.text("abc", min_size=1), st.floats(0.01, 100), min_size=1))
def test_shares_sum_up_and_stay_within_one(total: int, weights: dict[str, float]) -> None:
    parts = shares(total, weights)
    assert sum(parts.values()) == total
    for name, weight in weights.items():
        assert abs(parts[name] - total * weight / sum(weights.values())) < 1.000001
    names = list(weights)
    random.Random(0).shuffle(names)
    assert shares(total, {name: weights[name] for name in names}) == parts


def test_quotas_of_a_mix() -> None:
    sizes = {"a": 100, "b": 100, "c": 100}
    ones = dict.fromkeys(sizes, 1.0)
    assert subsets.quotas(sizes, {}, ones, None) == sizes
    assert subsets.quotas(sizes, {"a": 7}, ones, None) == {"a": 7, "b": 100, "c": 100}
    assert subsets.quotas(sizes, {"a": 10}, ones | {"b": 3.0}, 50) == {"a": 10, "b": 30, "c": 10}
    with pytest.raises(DataPrepError, match="133 samples are wanted of b, which has 100"):
        subsets.quotas(sizes, {}, ones | {"b": 2.0}, 266)
    with pytest.raises(DataPrepError, match="sum to 60, the total is 50"):
        subsets.quotas(sizes, {"a": 60}, ones, 50)


def test_weights_are_kept_to_on_average() -> None:
    drawn = Counter(choose(0, "prompt", str(n), {"rare": 1, "common": 3, "never": 0}) for n in range(4000))
    assert set(drawn) == {"rare", "common"}
    assert 0.22 < drawn["rare"] / 4000 < 0.28


@given(seeds, st.text(), st.text())
def test_a_draw_is_in_range(seed: int, purpose: str, key: str) -> None:
    assert 0 <= draw(seed, purpose, key) < 1


def test_no_weight_above_zero_is_an_error() -> None:
    with pytest.raises(ValueError, match="above zero"):
        choose(0, "p", "k", {"a": 0})
    with pytest.raises(ValueError, match="above zero"):
        shares(3, {"a": 0})
