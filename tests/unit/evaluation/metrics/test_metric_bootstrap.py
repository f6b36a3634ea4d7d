"""Bootstrap over classes: its draws, its intervals, and how often they hold the truth."""

from __future__ import annotations

import interval_coverage
import numpy as np
import pytest

from speciarl.evaluation.config import BootstrapConfig
from speciarl.evaluation.metrics import bootstrap
from speciarl.evaluation.metrics.bootstrap import Spread

CONFIG = BootstrapConfig(draws=4000)


def test_sums_of_classes() -> None:
    features = np.array([[1.0, 10], [2, 20], [4, 40]])
    assert bootstrap.class_sums(features, np.array([1, 0, 1]), 3).tolist() == [[2, 20], [5, 50], [0, 0]]


def test_draws_take_whole_classes_with_replacement() -> None:
    drawn = bootstrap.draw_sums(np.eye(5), CONFIG, "pets")
    assert (drawn.sum(1) == 5).all()
    assert set(np.unique(drawn)) <= set(range(6))
    assert drawn.mean(0) == pytest.approx(1, abs=0.1)
    assert drawn.var(0) == pytest.approx(0.8, abs=0.15)  # multinomial: 5 * 1/5 * 4/5


def test_draws_follow_from_seed_and_stream() -> None:
    one = bootstrap.draw_sums(np.eye(5), CONFIG, "pets")
    assert (one == bootstrap.draw_sums(np.eye(5), CONFIG, "pets")).all()
    assert (one != bootstrap.draw_sums(np.eye(5), CONFIG, "cars")).any()
    assert (one != bootstrap.draw_sums(np.eye(5), CONFIG.model_copy(update={"seed": 1}), "pets")).any()
    assert one[0].tolist() == [1, 0, 0, 3, 1]  # on every machine


def test_the_share_of_draws_held_at_once_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = bootstrap.draw_sums(np.eye(8), CONFIG, "pets")
    monkeypatch.setattr(bootstrap, "_AT_ONCE", 24)
    assert (whole == bootstrap.draw_sums(np.eye(8), CONFIG, "pets")).all()


def test_of_independent_classes_the_error_is_that_of_a_mean() -> None:
    values = np.random.default_rng(0).normal(3, 1, 50)
    drawn = bootstrap.draw_sums(np.stack([values, np.ones(50)], 1), CONFIG, "pets")
    spread = Spread.of(drawn[:, 0] / drawn[:, 1], 50)
    assert spread is not None
    assert spread.error == pytest.approx(values.std(ddof=1) / np.sqrt(50), rel=0.05)
    assert spread.freedom == 49


def test_less_than_two_classes_have_no_interval() -> None:
    assert Spread.of(np.ones(100), 1) is None
    assert Spread.of(np.full(100, np.nan), 5) is None
    assert np.isnan(bootstrap.draw_sums(np.zeros((0, 2)), CONFIG, "none")).all()


def test_intervals_of_shares_stay_within_their_span() -> None:
    spread = Spread(0.05, 36)
    low, high = spread.interval(0.98, 0.95, (0, 1))
    assert 0 < low < 0.98 < high < 1
    assert 0.98 - low > high - 0.98
    assert spread.interval(0.01, 0.95, (0, None))[0] == 0
    left, right = spread.interval(0.3, 0.95)
    assert (left + right) / 2 == pytest.approx(0.3)


def test_intervals_and_p_values_agree() -> None:
    for value in np.linspace(-0.3, 0.3, 41):
        spread = Spread(0.05, 36)
        low, high = spread.interval(value, 0.95)
        assert (low <= 0 <= high) == (spread.p(value) >= 0.05)


def test_classes_that_are_all_alike_are_told_from_nothing_by_their_number() -> None:
    for error in (0.0, 1e-17):  # what rounding leaves
        assert Spread(error, 5).p(0.0) == 1
        assert [Spread(error, classes - 1).p(0.1) for classes in (2, 3, 6)] == [0.5, 0.25, 0.03125]


def test_at_an_end_of_its_span_an_interval_is_no_point() -> None:
    slack = 1 - 0.025 ** (1 / 37)
    for error in (0.0, 1e-17):
        assert Spread(error, 36).interval(1.0, 0.95, (0, 1)) == pytest.approx((1 - slack, 1), abs=1e-12)
        assert Spread(error, 36).interval(0.0, 0.95, (0, 1)) == pytest.approx((0, slack), abs=1e-12)
        assert Spread(error, 36).interval(-1.0, 0.95, (-1, 1)) == pytest.approx((-1, -1 + 2 * slack), abs=1e-12)
    assert (1 - slack) ** 37 == pytest.approx(0.025)  # so often would 37 classes of that share all be right
    assert Spread(0.0, 36).interval(0.0, 0.95, (0, None)) == (0, 0)
    assert Spread(0.0, 36).interval(0.0, 0.95) == (0, 0)
    assert Spread(0.0, 36).interval(0.5, 0.95, (0, 1)) == (0.5, 0.5)


def test_detectable_is_what_is_rejected_four_times_in_five() -> None:
    spread = Spread(1.0, 99)
    true = spread.detectable(0.95)
    seen = np.random.default_rng(0).normal(true, 1, 4000)
    assert np.mean([spread.p(value) < 0.05 for value in seen]) == pytest.approx(0.8, abs=0.03)


def test_mean_of_independent_values() -> None:
    spread = Spread.of_mean([Spread(0.3, 36), Spread(0.4, 99)])
    assert spread.error == pytest.approx(0.25)
    assert 36 < spread.freedom < 36 + 99
    assert Spread.of_mean([Spread(0.2, 10)] * 2).freedom == pytest.approx(20)
    assert Spread.of_mean([Spread(0.0, 10), Spread(0.0, 5)]).freedom == 5


@pytest.mark.parametrize("classes", interval_coverage.CLASSES)
def test_coverage_and_rejections(classes: int) -> None:
    """Seeded, so that nothing passes by chance; the benchmark takes more draws."""
    for coverage, rejections in interval_coverage.simulate(classes, simulations=600, draws=200).values():
        assert 0.93 <= coverage <= 0.97
        assert 0.03 <= rejections <= 0.07
