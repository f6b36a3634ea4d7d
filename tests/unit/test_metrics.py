"""Correctness, specificity and HM."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciarl.category import Category
from speciarl.metrics import harmonic_mean, summarise

outcomes = st.lists(st.one_of(st.none(), st.sampled_from(Category)), min_size=1, max_size=40)


def test_by_hand() -> None:
    summary = summarise(
        [None, Category.WRONG, Category.ABSTAIN, Category.GENERIC, Category.LESS_SPECIFIC, Category.SPECIFIC]
    )
    assert summary is not None
    assert summary.count == 6
    assert summary.correctness == pytest.approx(4 / 6)
    assert summary.specificity == pytest.approx((0.25 + 0.5 + 1) / 3)
    assert summary.hm == pytest.approx(2 * (4 / 6) * (1.75 / 3) / (4 / 6 + 1.75 / 3))
    assert summary.rates["unparsable"] == pytest.approx(1 / 6)


def test_nothing_scored_has_no_metrics() -> None:
    assert summarise([]) is None


def test_abstaining_everywhere_is_correct_but_worthless() -> None:
    summary = summarise([Category.ABSTAIN] * 3)
    assert summary is not None
    assert (summary.correctness, summary.specificity, summary.hm) == (1.0, None, 0.0)


@given(outcomes)
def test_bounds(answers: list[Category | None]) -> None:
    summary = summarise(answers)
    assert summary is not None
    assert sum(summary.rates.values()) == pytest.approx(1)
    assert -1e-9 <= summary.correctness <= 1 + 1e-9
    assert 0 <= summary.hm <= 1 + 1e-9
    if summary.specificity is not None:
        assert min(summary.correctness, summary.specificity) - 1e-9 <= summary.hm or summary.hm == 0


@given(outcomes, st.randoms())
def test_order_does_not_matter(answers: list[Category | None], random: object) -> None:
    shuffled = list(answers)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert summarise(answers) == summarise(shuffled)


@given(st.floats(0.001, 1), st.floats(0.001, 1))
def test_harmonic_mean_lies_between(correctness: float, specificity: float) -> None:
    low, high = sorted((correctness, specificity))
    assert low - 1e-9 <= harmonic_mean(correctness, specificity) <= high + 1e-9
