"""Best of k, against the scalar definition, enumeration and every assignment of outcomes to unscored answers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speciarl.category import Category
from speciarl.evaluation.config import MetricsConfig
from speciarl.evaluation.metrics import best_of, bootstrap, scores
from speciarl.evaluation.outcome import SCORED, Outcome
from speciarl.metrics import best_of as scalar_best_of

N = 4
with_gaps = st.lists(st.lists(st.sampled_from(Outcome), min_size=N, max_size=N), min_size=1, max_size=5)
KNOWN_TO_TRAINING = [outcome for outcome in Outcome if outcome is not Outcome.TOO_LONG]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.lists(st.sampled_from(KNOWN_TO_TRAINING), min_size=N, max_size=N), min_size=1, max_size=5))
def test_the_same_as_the_scalar_definition(outcomes: list[list[Outcome]]) -> None:
    groups = [[one.category for one in group if one is not Outcome.UNSCORED] for group in outcomes]
    families = best_of.families(MetricsConfig(), np.array(outcomes, np.int8))
    for k, family in enumerate(families, 1):
        sums = family.features.sum(0)
        values = {metric.name: float(metric.statistic(sums)) for metric in family.metrics}
        expected = scalar_best_of(groups, k)
        if expected is None:
            assert sums.sum() == 0
            assert np.isnan(values["correctness"])
            continue
        assert values["correctness"] == pytest.approx(expected.correctness)
        assert values["hm"] == pytest.approx(expected.hm)
        if expected.specificity is not None:
            assert values["specificity"] == pytest.approx(expected.specificity)
        assert sums[scores.column(Outcome.GENERIC)] / expected.count == pytest.approx(expected.rates["generic"])


def test_equal_to_enumeration_at_64() -> None:
    outcomes = np.random.default_rng(1).integers(-2, 6, (3, 64)).astype(np.int8)
    for k, expected in enumerate(best_of.expected_counts(outcomes), 1):
        if k in (2, 63):
            subsets = [max(subset) for subset in itertools.combinations(outcomes[0].tolist(), k)]
            shares = np.bincount(np.array(subsets) + 3, minlength=scores.COLUMNS) / len(subsets)
            assert expected[0] == pytest.approx(shares, abs=1e-12)
        assert expected.sum(1) == pytest.approx(1)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from(SCORED), min_size=3, max_size=3), min_size=1, max_size=2),
    st.sets(st.tuples(st.integers(0, 1), st.integers(0, 2)), max_size=3),
)
def test_bounds_over_all_assignments(outcomes: list[list[Outcome]], gaps: set[tuple[int, int]]) -> None:
    known = np.array(outcomes, np.int8)
    places = [place for place in gaps if place[0] < len(known)]
    holed = known.copy()
    for place in places:
        holed[place] = Outcome.UNSCORED
    guesses = np.array(list(itertools.product(SCORED, repeat=len(places))), np.int8)
    possible = np.repeat(known[None], len(guesses), 0)
    for at, place in enumerate(places):
        possible[:, *place] = guesses[:, at]
    flat = possible.reshape(-1, 3)
    expected = [one.reshape(len(guesses), -1, scores.COLUMNS).sum(1) for one in best_of.expected_counts(flat)]
    for family, sums in zip(best_of.families(MetricsConfig(), holed), expected, strict=True):
        for metric in family.metrics:
            low, high = metric.bounds(family.extremes)
            values = metric.statistic(sums)
            if np.isnan(values).all():
                assert (low, high) == (None, None)
            elif metric.name == "hm":
                assert low - 1e-9 <= np.nanmin(values)
                assert high == pytest.approx(np.nanmax(values), abs=1e-9)
            else:
                assert (low, high) == pytest.approx((np.nanmin(values), np.nanmax(values)), abs=1e-9)


def test_bounds_hold_where_a_better_category_weighs_less() -> None:
    config = MetricsConfig(weights={"generic": 0.25, "less_specific": 0.5, "specific": 1.0, "more_specific": 0.1})
    *_, family = best_of.families(config, np.array([[Outcome.SPECIFIC, Outcome.UNSCORED]], np.int8))
    assert family.metrics[1].bounds(family.extremes) == (0.1, 1.0)


@settings(deadline=None, max_examples=50)
@given(with_gaps)
def test_the_plain_best_is_the_first_of_the_best(outcomes: list[list[Outcome]]) -> None:
    found = best_of.best_index(np.array(outcomes, np.int8))
    for group, index in zip(outcomes, found.tolist(), strict=True):
        best = max(group)
        assert index == (-1 if best is Outcome.UNSCORED else group.index(best))


def test_the_plain_best_of_all_is_best_of_n_where_all_are_scored() -> None:
    outcomes = np.random.default_rng(2).integers(-2, 6, (20, 5)).astype(np.int8)
    plain = best_of.plain_family(MetricsConfig(), outcomes)
    *_, last = best_of.families(MetricsConfig(), outcomes)
    classes = np.arange(20) % 4
    assert bootstrap.class_sums(plain.features, classes, 4) == pytest.approx(
        bootstrap.class_sums(last.features, classes, 4)
    )
    assert [metric.name for metric in plain.metrics] == ["best/correctness", "best/specificity", "best/hm"]


def test_categories_stay_in_order() -> None:
    assert [outcome.value for outcome in Outcome if outcome >= 0] == [category.value for category in Category]
