"""Correctness, specificity and HM."""

import itertools
import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciarl.category import Category
from speciarl.metrics import best_of, harmonic_mean, key, summarise

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


def rank(outcome: Category | None) -> int:
    return -1 if outcome is None else int(outcome)


groups = st.lists(st.lists(st.one_of(st.none(), st.sampled_from(Category)), max_size=6), max_size=4)


@given(groups, st.integers(1, 4))
def test_best_of_k_is_the_average_over_all_subsets(several: list[Sequence[Category | None]], k: int) -> None:
    best = best_of(several, k)
    fit = [group for group in several if len(group) >= k]
    if not fit:
        assert best is None
        return
    assert best is not None
    assert best.count == len(fit)
    for kind in (*Category, None):
        expected = [
            sum(max(subset, key=rank) is kind for subset in itertools.combinations(group, k)) / math.comb(len(group), k)
            for group in fit
        ]
        assert best.rates[key(kind)] == pytest.approx(sum(expected) / len(fit))


@given(outcomes)
def test_the_best_of_one_is_the_plain_summary(scored: list[Category | None]) -> None:
    plain, best = summarise(scored), best_of([[outcome] for outcome in scored], 1)
    assert plain is not None
    assert best is not None
    assert best.rates == pytest.approx(dict(plain.rates))
    assert (best.correctness, best.hm) == pytest.approx((plain.correctness, plain.hm))
    assert (best.specificity is None) is (plain.specificity is None)


def test_best_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        best_of([[Category.WRONG]], 0)
