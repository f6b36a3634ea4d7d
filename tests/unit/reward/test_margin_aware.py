"""The margin-aware reward, which goes beyond the paper."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciarl.category import Category
from speciarl.reward import Member, Unparsable, load
from speciarl.reward.dynamic import rewards as dynamic
from speciarl.reward.margin_aware import reaches
from speciarl.reward.margin_aware import rewards as margin_aware
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


def test_it_loads_by_name() -> None:
    assert load("margin_aware", {"confidence": 0.7})([certain(c) for c in Category])[-1] == 1
