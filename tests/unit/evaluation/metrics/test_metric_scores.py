"""Scores from counts of outcomes, and their bounds against every assignment of outcomes to unscored answers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speciarl.category import Category
from speciarl.evaluation.config import MetricsConfig
from speciarl.evaluation.metrics import scores
from speciarl.evaluation.outcome import SCORED, Outcome
from speciarl.metrics import summarise

CATEGORIES = [outcome for outcome in SCORED if outcome is not Outcome.TOO_LONG]
weights = st.fixed_dictionaries(
    {name: st.floats(0, 1) for name in ("generic", "less_specific", "specific", "more_specific")}
)


def sums_of(outcomes: list[Outcome]) -> np.ndarray:
    return scores.counts(np.array([outcomes], np.int8)).sum(0)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from(CATEGORIES), min_size=1, max_size=40))
def test_the_same_as_in_training(outcomes: list[Outcome]) -> None:
    summary = summarise([Category(outcome) if outcome >= 0 else None for outcome in outcomes])
    assert summary is not None
    family = scores.family(MetricsConfig(), np.array([outcomes], np.int8))
    values = {metric.name: float(metric.statistic(family.features.sum(0))) for metric in family.metrics}
    assert values["correctness"] == pytest.approx(summary.correctness)
    assert values["hm"] == pytest.approx(summary.hm)
    if summary.specificity is None:
        assert np.isnan(values["specificity"])
    else:
        assert values["specificity"] == pytest.approx(summary.specificity)
    assert all(values[f"rate/{name}"] == pytest.approx(rate) for name, rate in summary.rates.items())


def test_by_hand() -> None:
    sums = sums_of([Outcome.TOO_LONG, Outcome.ABSTAIN, Outcome.GENERIC, Outcome.MORE_SPECIFIC, Outcome.UNSCORED])
    grading = scores.Grading.of(MetricsConfig())
    assert grading.correctness(sums) == pytest.approx(3 / 4)
    assert grading.specificity(sums) == pytest.approx(1.25 / 2)
    assert grading.score(sums) == pytest.approx((-0.5 + 0.2 + 1) / 4)
    strict = scores.Grading.of(MetricsConfig(abstain_is_wrong=True))
    assert strict.correctness(sums) == pytest.approx(2 / 4)
    assert strict.specificity(sums) == pytest.approx(1.25 / 2)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(SCORED), max_size=5), st.integers(0, 3), weights, st.booleans())
def test_bounds_are_the_extremes_over_all_assignments(
    scored: list[Outcome], unscored: int, chosen: dict[str, float], strict: bool
) -> None:
    config = MetricsConfig(weights=chosen, abstain_is_wrong=strict)
    outcomes = [*scored, *[Outcome.UNSCORED] * unscored]
    family = scores.family(config, np.array([outcomes], np.int8).reshape(1, len(outcomes)))
    possible = np.array(
        [sums_of([*scored, *guess]) for guess in itertools.combinations_with_replacement(SCORED, unscored)]
    )
    for metric in family.metrics:
        values = metric.statistic(possible)
        expected = (None, None) if np.isnan(values).all() else (np.nanmin(values), np.nanmax(values))
        assert metric.bounds(family.features.sum(0)) == pytest.approx(expected, abs=1e-9), metric.name


def test_the_worst_split_is_between_wrong_and_generic() -> None:
    sums = sums_of([Outcome.WRONG] * 8 + [Outcome.SPECIFIC] * 2 + [Outcome.UNSCORED] * 10)
    low, high = scores.Grading.of(MetricsConfig()).hm_bounds(sums)
    all_wrong, all_generic = 2 * 0.1 / 1.1, 2 * 0.6 * (4.5 / 12) / (0.6 + 4.5 / 12)
    assert low == pytest.approx(min(all_wrong, all_generic))
    assert high == pytest.approx(2 * 0.6 / 1.6)
    mixed = sums_of([Outcome.SPECIFIC] * 50 + [Outcome.WRONG] * 50 + [Outcome.UNSCORED] * 400)
    lowest, _ = scores.Grading.of(MetricsConfig()).hm_bounds(mixed)
    assert lowest is not None
    assert lowest <= min(2 * 0.1 / 1.1, 2 * 0.9 * (150 / 450) / (0.9 + 150 / 450))


@pytest.mark.parametrize("strict", [False, True])
def test_definitions_name_weights_and_the_rule_for_abstentions(strict: bool) -> None:
    defined = scores.definitions(MetricsConfig(abstain_is_wrong=strict, too_long_chars=99))
    assert "more specific 1, specific 1, less specific 0.5, generic 0.25" in defined["specificity"]
    assert ("abstaining as wrong" in defined["correctness"]) is strict
    assert "99 characters" in defined["correctness"]
    assert "less specific -0.6" in defined["score"]
    assert all(text.endswith(".") for text in defined.values())
