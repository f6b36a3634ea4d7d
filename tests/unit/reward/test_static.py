"""Static rewards and the single dynamic one: every value of the paper, and what holds for any group."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciarl.category import Category
from speciarl.reward import NAMES, Member, Unparsable, load
from speciarl.reward.dynamic import rewards as dynamic
from speciarl.verdict import Reason, Source, Unscorable, Verdict

W, A, G, L, S, M = (Verdict(category, None, Source.LIVE) for category in Category)
LOST = Unscorable(Reason.TIMEOUT)
BLANK = Unparsable()

members = st.sampled_from([W, A, G, L, S, M, LOST, BLANK])
groups = st.lists(members, max_size=12)
STATIC = ("binary", "graded_1", "graded_2", "graded_3")
EVERY = (*STATIC, "dynamic", "dynamic_single", "margin_aware")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("binary", [0, 0, 0, 0, 1, 1]),
        ("graded_1", [0, 0.25, 0.5, 0.75, 1, 1]),
        ("graded_2", [0, 0, 0.5, 0.75, 1, 1]),
        ("graded_3", [0, 0, 0, 0.75, 1, 1]),
    ],
)
def test_values(name: str, values: Sequence[float]) -> None:
    assert load(name)([W, A, G, L, S, M, BLANK, LOST]) == [*values, -1, None]


@pytest.mark.parametrize("name", STATIC)
@given(group=groups)
def test_a_static_reward_looks_at_one_rollout_at_a_time(name: str, group: list[Member]) -> None:
    assert load(name)(group) == [load(name)([member])[0] for member in group]


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        ([], []),
        ([W, W], [0, 0]),
        ([W, A, A], [0, 1, 0]),
        ([G, L, L], [0, 1, 0]),
        ([S, M], [1, 0]),
        ([M, S], [1, 0]),
        ([L, S, M, M], [0, 1, 0, 0]),
        ([S, S], [1, 0]),
        ([BLANK, G, LOST], [-1, 1, None]),
        ([BLANK, W], [-1, 0]),
        ([BLANK, LOST, W, M, S], [-1, None, 0, 1, 0]),
        ([BLANK, BLANK], [-1, -1]),
        ([LOST], [None]),
    ],
)
def test_single(group: list[Member], expected: list[float | None]) -> None:
    assert load("dynamic_single")(group) == expected


@given(groups)
def test_the_single_winner_is_the_first_that_wins_in_the_dynamic_reward(group: list[Member]) -> None:
    single, plain = load("dynamic_single")(group), dynamic(group)
    winners = [index for index, earned in enumerate(single) if earned == 1]
    assert winners == [index for index, earned in enumerate(plain) if earned == 1][:1]
    for index, earned in enumerate(single):
        if index not in winners:
            assert earned == (0 if isinstance(group[index], Verdict) else plain[index])


@given(groups)
def test_the_single_reward_takes_a_correct_subtype_for_the_exact_answer(group: list[Member]) -> None:
    assert load("dynamic_single")([S if member is M else member for member in group]) == load("dynamic_single")(group)


@given(st.lists(st.sampled_from([W, LOST, BLANK]), max_size=12))
def test_nobody_is_the_single_winner_among_wrong_answers(group: list[Member]) -> None:
    assert 1 not in load("dynamic_single")(group)


@pytest.mark.parametrize("name", EVERY)
@given(group=groups)
def test_no_reward_comes_from_a_failure_nor_from_silence(name: str, group: list[Member]) -> None:
    for member, earned in zip(group, load(name)(group), strict=True):
        if isinstance(member, Unscorable):
            assert earned is None
        elif isinstance(member, Unparsable):
            assert earned == -1
        else:
            assert earned is not None
            assert 0 <= earned <= 1


@pytest.mark.parametrize("name", EVERY)
@given(data=st.data(), group=groups)
def test_a_failure_changes_nothing_for_its_siblings(name: str, data: st.DataObject, group: list[Member]) -> None:
    place = data.draw(st.integers(0, len(group)))
    joined = load(name)([*group[:place], LOST, *group[place:]])
    assert joined[:place] + joined[place + 1 :] == load(name)(group)


def test_every_named_reward_is_covered_here() -> None:
    assert set(EVERY) == set(NAMES)
