"""Paired differences, Holm's correction and averages."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scored_cells import answers_of, measured

from speciarl.errors import DataError
from speciarl.evaluation.metrics.averages import ALL, average, groups
from speciarl.evaluation.metrics.differences import differences, holm
from speciarl.evaluation.outcome import Outcome
from speciarl.evaluation.results import Difference, Estimate

CLASSES = np.arange(60) // 3


def outcomes(seed: int, better: float = 0.0) -> np.ndarray:
    chance = np.random.default_rng(seed)
    right = chance.random((60, 1)) < 0.6 + better
    return np.where(right, Outcome.SPECIFIC, Outcome.WRONG)


def test_a_cell_compared_with_itself_differs_by_exactly_nothing() -> None:
    cell = measured(answers_of(outcomes(0), CLASSES))
    for difference in differences([(cell, measured(answers_of(outcomes(0), CLASSES), "copy"))], 0.95):
        assert (difference.estimate.value, difference.estimate.low, difference.estimate.high) == (0.0, 0.0, 0.0)
        assert (difference.p, difference.p_holm, difference.detectable) == (1.0, 1.0, 0.0)


def test_a_better_model_is_told_apart() -> None:
    worse, better = measured(answers_of(outcomes(1), CLASSES)), measured(answers_of(outcomes(2, 0.3), CLASSES), "good")
    found = {one.metric: one for one in differences([(worse, better)], 0.95)}
    assert list(found) == ["correctness", "specificity", "hm"]
    correctness = found["correctness"]
    value = better.cell.metrics["correctness"].value - worse.cell.metrics["correctness"].value
    assert (correctness.first, correctness.second) == ("m/as_built", "good/as_built")
    assert correctness.estimate.value == pytest.approx(value)
    assert 0 < correctness.estimate.low < value < correctness.estimate.high
    assert correctness.p < correctness.p_holm < 0.05
    assert found["specificity"].estimate.value == 0  # all right answers of both are specific
    back = differences([(better, worse)], 0.95)[0]
    assert (back.estimate.value, back.p) == (-correctness.estimate.value, correctness.p)


def test_pairing_makes_the_interval_narrower_than_that_of_independent_draws() -> None:
    one = outcomes(3)
    other = one.copy()
    other[:3] = Outcome.SPECIFIC
    first, second = measured(answers_of(one, CLASSES)), measured(answers_of(other, CLASSES), "o")
    paired = differences([(first, second)], 0.95)[0].estimate
    alone = first.cell.metrics["correctness"]
    assert paired.high - paired.low < (alone.high - alone.low) / 2


def test_one_class_shows_nothing() -> None:
    one = measured(answers_of(outcomes(1), np.zeros(60, int)))
    other = measured(answers_of(outcomes(2), np.zeros(60, int)), "o")
    assert (one.cell.metrics["hm"].low, one.cell.metrics["hm"].high) == (None, None)
    assert differences([(one, other)], 0.95) == []


@pytest.mark.parametrize(("classes", "p"), [(2, 0.5), (7, 0.015625)])
def test_classes_that_all_differ_by_the_same_have_no_interval(classes: int, p: float) -> None:
    of = np.arange(10 * classes) // 10
    one = measured(answers_of(np.zeros((len(of), 1)), of))
    other = measured(answers_of(np.full((len(of), 1), Outcome.SPECIFIC), of), "o")
    for difference in differences([(one, other)], 0.95):
        assert (difference.estimate.value, difference.estimate.low, difference.estimate.high) == (1.0, None, None)
        assert (difference.p, difference.detectable) == (p, 1.0)
        assert difference.sure == (difference.p_holm < 0.05)


def test_a_difference_that_unscored_answers_may_undo_is_not_sure() -> None:
    estimate = Estimate(0.1, 0.05, 0.15, 0.02, 0.2)
    sure = Difference("a", "b", "d", "j", "hm", estimate, 0.001, 0.01, 0.1)
    assert sure.sure
    assert replace(sure, estimate=Estimate(-0.1, -0.15, -0.05, -0.2, -0.02)).sure
    assert replace(sure, estimate=Estimate(0.1, 0.05, 0.15)).sure
    assert not replace(sure, estimate=Estimate(0.1, 0.05, 0.15, -0.01, 0.2)).sure
    assert not replace(sure, p_holm=0.06).sure


def test_a_metric_without_a_value_has_no_difference() -> None:
    wrong = measured(answers_of(np.zeros((60, 1)), CLASSES))
    found = differences([(wrong, measured(answers_of(outcomes(1), CLASSES), "o"))], 0.95)
    assert [one.metric for one in found] == ["correctness", "hm"]


def test_other_questions_are_refused() -> None:
    one, other = measured(answers_of(outcomes(1), CLASSES)), measured(answers_of(outcomes(1)[:30], CLASSES[:30]), "o")
    with pytest.raises(DataError, match=r"m/as_built and o/as_built did not answer the same questions of 'd'"):
        differences([(one, other)], 0.95)
    moved = measured(answers_of(outcomes(1), np.roll(CLASSES, 1)), "o")
    renamed = replace(one, class_names=[(f"another {number}",) for number in range(20)])
    for labelled in (moved, renamed):
        with pytest.raises(DataError, match="of 'd' with the same labels"):
            differences([(one, labelled)], 0.95)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_holm_keeps_the_order_and_lies_between_p_and_bonferroni(p_values: list[float]) -> None:
    corrected = holm(p_values)
    assert all(p <= one <= min(1, p * len(p_values)) + 1e-12 for p, one in zip(p_values, corrected, strict=True))
    assert [one for _, one in sorted(zip(p_values, corrected, strict=True))] == sorted(corrected)


def test_averages_count_data_sets_alike() -> None:
    small, large = answers_of([[Outcome.SPECIFIC], [Outcome.GENERIC]]), answers_of(outcomes(1), CLASSES)
    cells = [measured(small), measured(large)]
    mean = average("fine-grained", cells, 0.95)
    for name in ("correctness", "specificity", "hm"):
        assert mean.metrics[name].value == pytest.approx(
            sum(cell.cell.metrics[name].value for cell in cells) / 2, abs=1e-9
        )
        assert mean.metrics[name].low <= mean.metrics[name].value <= mean.metrics[name].high
    assert mean.datasets == ["d", "d"]


def test_an_average_lacks_what_one_data_set_lacks() -> None:
    wrong, right = measured(answers_of(np.zeros((60, 1)), CLASSES)), measured(answers_of(outcomes(1), CLASSES))
    mean = average("both", [wrong, right], 0.95)
    assert mean.metrics["specificity"].value is None
    assert mean.metrics["hm"].value == pytest.approx(right.cell.metrics["hm"].value / 2)
    alone = measured(answers_of(outcomes(1), np.zeros(60, int)))
    assert average("both", [alone, right], 0.95).metrics["hm"].low is None


def test_groups() -> None:
    datasets = {"flowers": "fine-grained", "cars": "very fine-grained", "food": "fine-grained", "cub": ""}
    assert groups(datasets) == {
        "fine-grained": ["flowers", "food"],
        "very fine-grained": ["cars"],
        ALL: ["flowers", "cars", "food", "cub"],
    }
    assert groups({"cub": ""}) == {}
