"""Correction by the confusion matrix: planted judges are found out, and the interval holds the true value."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from speciarl.evaluation.calibrate.agreement import channel, confusion
from speciarl.evaluation.calibrate.correction import correct, unmix
from speciarl.evaluation.calibrate.judged import Judged
from speciarl.evaluation.config import BootstrapConfig, MetricsConfig
from speciarl.evaluation.metrics.scores import Grading

PLANTED = np.array(
    [
        [0.85, 0.02, 0.03, 0.04, 0.05, 0.01],
        [0.05, 0.90, 0.02, 0.01, 0.01, 0.01],
        [0.10, 0.00, 0.70, 0.15, 0.05, 0.00],
        [0.10, 0.00, 0.15, 0.60, 0.14, 0.01],
        [0.03, 0.00, 0.01, 0.06, 0.85, 0.05],
        [0.10, 0.00, 0.00, 0.05, 0.25, 0.60],
    ]
)
"""P(verdict | category) of a judge that errs."""
TRUE = np.array([0.2, 0.05, 0.1, 0.25, 0.35, 0.05])
DRAWS = BootstrapConfig(draws=200)


def calibration(planted: NDArray[np.float64], per_category: int, chance: np.random.Generator | None) -> Judged:
    """Pairs of each category, judged as planted: by chance, or in the very shares where there is none."""
    gold = np.repeat(np.arange(6), per_category)
    if chance is None:
        counts = (planted * per_category).round().astype(int)
        assert (counts.sum(1) == per_category).all()
        said = np.concatenate([np.repeat(np.arange(6), row) for row in counts])
    else:
        said = np.concatenate([chance.choice(6, per_category, p=row) for row in planted])
    nothing = np.full(len(gold), np.nan)
    truths = np.tile(np.arange(per_category), 6)
    return Judged(gold, said, truths, nothing, np.full((len(gold), 6), np.nan))


def reported(by_class: NDArray[np.float64]) -> NDArray[np.float64]:
    """Counts of all nine outcomes from those of the six categories."""
    return np.concatenate([np.zeros((len(by_class), 3)), by_class], 1)


def true_hm(extra: float = 0.0) -> float:
    return float(Grading.of(MetricsConfig()).hm(np.concatenate([[0, 0, extra], TRUE * (1 - extra)])))


def test_a_planted_judge_is_undone() -> None:
    judged = calibration(PLANTED, 100, None)
    assert channel(confusion(judged)) == pytest.approx(PLANTED)
    assert unmix(TRUE @ PLANTED, PLANTED) == pytest.approx(TRUE, abs=1e-6)
    by_class = reported(np.tile(TRUE @ PLANTED * 1000, (20, 1)))
    found = correct(judged, by_class, MetricsConfig(), DRAWS, "cats")
    assert found.corrected.value == pytest.approx(true_hm(), abs=1e-5)
    assert found.rates == pytest.approx(tuple(TRUE), abs=1e-5)
    assert found.reported.value is not None
    assert abs(found.reported.value - true_hm()) > 0.004  # there was something to correct
    assert found.corrected.low is not None
    assert found.corrected.high is not None
    assert found.corrected.low < true_hm() < found.corrected.high


def test_a_perfect_judge_needs_no_correction() -> None:
    by_class = reported(np.tile(TRUE * 100, (10, 1)))
    by_class[:, 2] = 25  # unparsable, which no judge decides
    by_class[:, 0] = 7  # unscored: no part of any share
    found = correct(calibration(np.eye(6), 30, None), by_class, MetricsConfig(), DRAWS, "cats")
    assert found.corrected.value == pytest.approx(found.reported.value)
    assert found.corrected.value == pytest.approx(true_hm(extra=0.2))
    assert sum(rate or 0 for rate in found.rates) == pytest.approx(0.8)


@settings(max_examples=60)
@given(
    st.lists(st.floats(0, 1), min_size=6, max_size=6).filter(lambda rates: sum(rates) > 0.1),
    st.lists(st.integers(0, 20), min_size=36, max_size=36),
)
def test_unmixing_keeps_to_the_simplex_and_undoes_mixing(rates: list[float], noise: list[int]) -> None:
    true = np.array(rates)
    counts = np.reshape(noise, (6, 6)) + 150 * np.eye(6)
    matrix = counts / counts.sum(1, keepdims=True)
    found = unmix(true @ matrix, matrix)
    assert (found >= 0).all()
    assert found.sum() == pytest.approx(true.sum())
    assert found == pytest.approx(true, abs=1e-4)
    impossible = unmix(np.array([0, 1.0, 0, 0, 0, 0]), matrix)  # no mixture gives that
    assert (impossible >= 0).all()
    assert impossible.sum() == pytest.approx(1)


def test_the_interval_holds_the_true_value_as_often_as_it_says() -> None:
    """Both kinds of chance at once: which pairs were calibrated on, and which classes the run has."""
    chance = np.random.default_rng(0)
    inside, trials = 0, 20
    for _ in range(trials):
        judged = calibration(PLANTED, 80, chance)
        per_class = np.array([chance.dirichlet(TRUE * 40) for _ in range(50)])
        answers = np.array([chance.multinomial(20, rates @ PLANTED) for rates in per_class], float)
        found = correct(judged, reported(answers), MetricsConfig(), DRAWS, "cats").corrected
        assert found.low is not None
        assert found.high is not None
        inside += found.low <= true_hm() <= found.high
    assert inside >= 0.85 * trials  # seeded: not by chance


def test_what_cannot_be_corrected_says_why() -> None:
    by_class = reported(np.tile(TRUE * 100, (10, 1)))
    judged = calibration(np.eye(6), 10, None)
    keep = judged.gold != 2
    partial = Judged(*(getattr(judged, name)[keep] for name in ("gold", "said", "truths", "margins", "probabilities")))
    found = correct(partial, by_class, MetricsConfig(), DRAWS, "cats")
    assert (found.corrected.value, found.why_not) == (None, "no gold pair is generic")
    assert found.reported.value is not None
    binary = np.zeros((6, 6))
    binary[:2, 0] = binary[2:, 4] = 1
    found = correct(calibration(binary, 10, None), by_class, MetricsConfig(), DRAWS, "cats")
    assert (found.corrected.value, found.why_not) == (None, "the judge hardly tells some categories apart")
    nothing = correct(judged, np.zeros((3, 9)), MetricsConfig(), DRAWS, "cats")
    assert nothing.why_not == "the run has no scored answers"
