"""The two rewards that go beyond the paper, and the memory of one of them."""

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciarl.category import Category
from speciarl.reward import Member, Unparsable, load
from speciarl.reward.best_so_far import rewards as anchored
from speciarl.reward.dynamic import rewards as dynamic
from speciarl.reward.margin_aware import reaches
from speciarl.reward.margin_aware import rewards as margin_aware
from speciarl.reward.memory import BestLevels, read, save
from speciarl.verdict import Reason, Source, Unscorable, Verdict

LOST, BLANK = Unscorable(Reason.TIMEOUT), Unparsable()
categories = st.sampled_from(Category)
hard = st.builds(Verdict, categories, st.none(), st.just(Source.LIVE))
silent: st.SearchStrategy[Member] = st.sampled_from([LOST, BLANK])


@st.composite
def soft(draw: st.DrawFn) -> Verdict:
    weights = draw(st.lists(st.floats(0.01, 1), min_size=6, max_size=6))
    shares = tuple(weight / sum(weights) for weight in weights)
    return Verdict(Category(shares.index(max(shares))), 0.0, Source.LIVE, shares)


def certain(category: Category) -> Verdict:
    shares = tuple(float(other is category) for other in Category)
    return Verdict(category, None, Source.LIVE, shares)


@given(st.lists(st.one_of(hard, silent), max_size=8), st.floats(0.01, 1))
def test_certain_verdicts_earn_as_in_the_dynamic_reward(group: list[Member], confidence: float) -> None:
    sure: list[Member] = [certain(m.category) if isinstance(m, Verdict) else m for m in group]
    assert margin_aware(group, confidence=confidence) == dynamic(group)
    assert margin_aware(sure, confidence=confidence) == dynamic(group)


@given(st.lists(st.one_of(soft(), hard, silent), max_size=8), st.floats(0.01, 1))
def test_a_soft_reward_is_a_probability_and_grows_with_the_answer(group: list[Member], confidence: float) -> None:
    for member, earned in zip(group, margin_aware(group, confidence=confidence), strict=True):
        if isinstance(member, Verdict):
            assert earned is not None
            assert 0 <= earned <= 1
            assert reaches(member, Category.SPECIFIC) - 1e-9 <= earned <= reaches(member, Category.ABSTAIN) + 1e-9


@given(soft())
def test_reaching_less_is_never_less_likely(verdict: Verdict) -> None:
    chances = [reaches(verdict, level) for level in Category]
    assert chances == sorted(chances, reverse=True)
    assert chances[0] == pytest.approx(1)


def test_equal_labels_still_have_a_signal() -> None:
    sure = Verdict(Category.SPECIFIC, 3.0, Source.LIVE, (0.02, 0, 0, 0.08, 0.9, 0))
    unsure = Verdict(Category.SPECIFIC, 0.1, Source.LIVE, (0.4, 0, 0, 0.05, 0.55, 0))
    assert margin_aware([sure, unsure, BLANK, LOST]) == [pytest.approx(0.9), pytest.approx(0.55), -1, None]
    assert margin_aware([unsure, unsure], confidence=0.6) == [pytest.approx(0.6)] * 2  # nobody reaches more than S-


@given(st.lists(st.one_of(hard, silent), max_size=8), st.one_of(st.none(), categories))
def test_the_level_never_falls_below_the_best_so_far(group: list[Member], best: Category | None) -> None:
    earned = anchored(group, best_so_far=best)
    ghost: list[Member] = [] if best is None else [Verdict(best, None, Source.LIVE)]
    assert earned == dynamic([*group, *ghost])[: len(group)]  # as if the old best were one more rollout
    if best is None:
        assert earned == dynamic(group)


notes = st.lists(st.tuples(st.sampled_from(["a", "b"]), st.integers(1, 6), categories), max_size=10)


def remembered(entries: list[tuple[str, int, Category]]) -> BestLevels:
    levels = BestLevels()
    for entry in entries:
        levels.note(*entry)
    return levels


@given(notes, st.sampled_from(["a", "b", "c"]), st.integers(0, 8))
def test_a_look_sees_the_best_of_earlier_steps(entries: list[tuple[str, int, Category]], image: str, step: int) -> None:
    earlier = [category for name, when, category in entries if name == image and when < step]
    assert remembered(entries).before(image, step) == max(earlier, default=None)


@given(st.data(), notes)
def test_order_and_repetition_of_notes_do_not_matter(
    data: st.DataObject, entries: list[tuple[str, int, Category]]
) -> None:
    shuffled = data.draw(st.permutations([*entries, *entries[:3]]))
    assert remembered(shuffled) == remembered(entries)


@given(notes, st.integers(0, 7))
def test_a_memory_cut_back_is_that_of_a_run_that_stopped_there(
    entries: list[tuple[str, int, Category]], step: int
) -> None:
    levels = remembered(entries)
    levels.forget_after(step)
    assert levels == remembered([entry for entry in entries if entry[1] <= step])


@given(entries=notes)
def test_saved_and_read_again(
    tmp_path_factory: pytest.TempPathFactory, entries: list[tuple[str, int, Category]]
) -> None:
    path = tmp_path_factory.mktemp("memory") / "levels.json"
    save(remembered(entries), path)
    assert read(path) == remembered(entries)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "damaged",
    ["", "[]", "3", '{"version": 2, "images": {}}', '{"version": 1}', '{"version": 1, "images": {"a": {"great": 1}}}',
     '{"version": 1, "images": {"a": {"wrong": "x"}}}', '{"version": 1, "images": {"a": 1}}'],
)  # fmt: skip
def test_a_damaged_file_is_named(tmp_path: Path, damaged: str) -> None:
    path = tmp_path / "levels.json"
    path.write_text(damaged)
    with pytest.raises(ValueError, match=r"levels\.json"):
        read(path)


def test_the_file_is_plain(tmp_path: Path) -> None:
    save(remembered([("pets/7", 3, Category.GENERIC), ("pets/7", 9, Category.SPECIFIC)]), tmp_path / "levels.json")
    dumped = json.loads((tmp_path / "levels.json").read_text())
    assert dumped == {"version": 1, "images": {"pets/7": {"generic": 3, "specific": 9}}}


def test_both_load_by_name() -> None:
    assert load("margin_aware", {"confidence": 0.7})([certain(c) for c in Category])[-1] == 1
    assert list(itertools.islice(load("best_so_far")([], best_so_far=None), 1)) == []  # type: ignore[call-arg]
