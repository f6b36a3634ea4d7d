"""Agreement and reliability of a judge, held against values known by hand or from scikit-learn-like definitions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from speciarl.category import Category
from speciarl.evaluation.calibrate.agreement import (
    PLAIN,
    QUADRATIC,
    accuracy,
    channel_estimates,
    confusion,
    estimated_kappa,
    kappa,
    precision,
    recall,
)
from speciarl.evaluation.calibrate.judged import UNSCORED, Judged
from speciarl.evaluation.calibrate.proportion import proportion
from speciarl.evaluation.calibrate.ranking import ranking_stability
from speciarl.evaluation.calibrate.reliability import by_margin, expected_calibration_error, flip_rate
from speciarl.evaluation.config import BootstrapConfig

CATEGORIES = st.integers(0, 5)


def made(gold: list[int], said: list[int], truths: list[int] | None = None, **more: NDArray[np.float64]) -> Judged:
    size = len(gold)
    nothing = {"margins": np.full(size, np.nan), "probabilities": np.full((size, 6), np.nan)} | more
    return Judged(np.array(gold), np.array(said), np.array(truths or range(size)), **nothing)


def test_a_perfect_judge_agrees_wholly() -> None:
    everything = made(list(range(6)) * 5, list(range(6)) * 5)
    for costs in (PLAIN, QUADRATIC):
        estimate = estimated_kappa(everything, costs, BootstrapConfig(draws=100))
        assert (estimate.value, estimate.high) == (1, 1)
        assert estimate.low is not None
        assert 0 < estimate.low < 1  # all that few truths can show
    assert accuracy(everything).value == 1
    assert (np.array(confusion(everything)) == 5 * np.eye(6)).all()
    assert all(recall(everything, category).value == 1 for category in Category)


def test_kappa_of_a_matrix_known_by_hand() -> None:
    counts = np.zeros((6, 6))
    counts[0, 0], counts[0, 5], counts[5, 0], counts[5, 5] = 20, 5, 10, 15
    # Observed .7; by chance (25 * 30 + 25 * 20) / 2500 = .5; the costs of the corner are those of any confusion.
    assert kappa(counts, PLAIN) == pytest.approx(0.4)
    assert kappa(counts, QUADRATIC) == pytest.approx(0.4)
    near = np.zeros((6, 6))
    near[0, 0], near[0, 1], near[1, 0], near[1, 1], near[5, 5] = 10, 10, 10, 10, 20
    assert kappa(near, QUADRATIC) > kappa(near, PLAIN) + 0.2  # they miss by one step only
    assert np.isnan(kappa(np.diag([7.0, 0, 0, 0, 0, 0]), PLAIN))  # chance alone would agree


@given(st.lists(st.tuples(CATEGORIES, CATEGORIES), min_size=1, max_size=50))
def test_kappa_is_the_textbooks(pairs: list[tuple[int, int]]) -> None:
    gold, said = map(list, zip(*pairs, strict=True))
    judged = made(gold, said)
    observed = np.mean(np.array(gold) == np.array(said))
    expected = sum(np.mean(np.array(gold) == one) * np.mean(np.array(said) == one) for one in range(6))
    value = kappa(confusion(judged), PLAIN)
    if expected == 1:
        assert np.isnan(value)
    else:
        assert value == pytest.approx((observed - expected) / (1 - expected))


def test_what_is_unscored_takes_no_part() -> None:
    judged = made([0, 0, 3, 3, 4], [0, UNSCORED, 3, 2, UNSCORED])
    assert confusion(judged).sum() == 3
    assert accuracy(judged).value == pytest.approx(2 / 3)
    assert recall(judged, Category.WRONG).value == 1
    assert recall(judged, Category.LESS_SPECIFIC).value == 0.5
    assert recall(judged, Category.SPECIFIC).value is None
    assert precision(judged, Category.GENERIC).value == 0
    assert precision(judged, Category.SPECIFIC).value is None


@given(st.lists(st.tuples(CATEGORIES, CATEGORIES), min_size=1, max_size=40))
def test_rows_of_the_confusion_matrix_sum_to_one_within_their_intervals(pairs: list[tuple[int, int]]) -> None:
    gold, said = map(list, zip(*pairs, strict=True))
    for category, row in enumerate(channel_estimates(made(gold, said))):
        if category not in gold:
            assert all(cell.value is None for cell in row)
            continue
        assert sum(cell.value or 0 for cell in row) == pytest.approx(1)
        for cell in row:
            assert cell.value is not None
            assert cell.low is not None
            assert cell.high is not None
            assert 0 <= cell.low <= cell.value <= cell.high <= 1


def test_wilson_of_independent_pairs_is_the_textbooks_and_clusters_widen_it() -> None:
    hits = np.array([True] * 8 + [False] * 2)
    alone = proportion(hits, np.arange(10))
    assert (alone.value, alone.low, alone.high) == pytest.approx((0.8, 0.490162, 0.943318), abs=1e-5)
    clustered = proportion(np.repeat(hits, 4), np.repeat(np.arange(10), 4))
    assert clustered.low == pytest.approx(alone.low, abs=0.03)  # forty copies of ten are worth ten
    assert clustered.high == pytest.approx(alone.high, abs=0.03)
    certain = proportion(np.ones(40, bool), np.arange(40))
    assert (certain.value, certain.high) == (1, 1)
    assert certain.low == pytest.approx(1 / (1 + 1.959964**2 / 40), abs=1e-6)  # not a point


@settings(max_examples=60)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 4)), max_size=30))
def test_a_proportion_lies_in_its_interval(observed: list[tuple[bool, int]]) -> None:
    estimate = proportion(np.array([hit for hit, _ in observed], bool), np.array([one for _, one in observed], int))
    if not observed:
        assert estimate.value is None
        return
    assert estimate.value is not None
    assert estimate.low is not None
    assert estimate.high is not None
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1


def test_a_margin_that_tells_is_seen() -> None:
    margins = np.arange(10.0)
    judged = made([0] * 10, [1] * 5 + [0] * 4 + [UNSCORED], margins=margins)
    low, high = by_margin(judged, bins=2)
    assert (low.pairs, low.least, low.most, low.accuracy.value) == (5, 0.0, 4.0, 0.0)
    assert (high.pairs, high.least, high.most, high.accuracy.value) == (4, 5.0, 8.0, 1.0)
    assert by_margin(made([0], [0])) == []


def test_calibration_error_known_by_hand() -> None:
    spread = np.full((4, 6), 0.02)
    spread[:, 2] = 0.9
    judged = made([2, 2, 2, 0], [2, 2, 2, 2], probabilities=spread)
    assert expected_calibration_error(judged) == pytest.approx(0.9 - 0.75)
    sure = np.tile(np.eye(6)[2], (4, 1))
    assert expected_calibration_error(made([2] * 4, [2] * 4, probabilities=sure)) == 0
    assert expected_calibration_error(made([2], [2])) is None


def test_flips_count_pairs_with_both_verdicts() -> None:
    one, other = np.array([0, 1, 2, UNSCORED]), np.array([0, 2, 2, 3])
    assert flip_rate(one, other, np.arange(4)).value == pytest.approx(1 / 3)
    assert flip_rate(one[3:], other[3:], np.arange(1)).value is None


def test_judges_that_order_models_alike() -> None:
    ours = {"a": 0.9, "b": 0.5, "c": 0.1, "only ours": 0.3}
    theirs, opposite = {"c": 0.2, "b": 0.3, "a": 0.4}, {"a": 0.0, "b": 0.5, "c": 1.0}
    found = ranking_stability({"ours": ours, "theirs": theirs, "opposite": opposite})
    assert [(one.first, one.second, one.models, one.tau) for one in found] == [
        ("ours", "theirs", 3, 1.0),
        ("ours", "opposite", 3, -1.0),
        ("theirs", "opposite", 3, -1.0),
    ]
    assert ranking_stability({"ours": {"a": 1.0}, "theirs": {"a": 0.5}})[0].tau is None
    assert ranking_stability({"ours": ours}) == []
