"""Failures of every kind are injected: bounds hold what the number would have been without them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from scored_cells import answers_of, measured

from speciarl.evaluation.metrics.answers import Answers
from speciarl.evaluation.metrics.averages import average
from speciarl.evaluation.metrics.cells import Measured
from speciarl.evaluation.metrics.differences import differences
from speciarl.evaluation.outcome import Outcome, of_judgement
from speciarl.evaluation.results import Estimate
from speciarl.verdict import Reason, Unscorable

SEEDS = 200
QUESTIONS, N = 12, 3


def fault_free(chance: np.random.Generator) -> Answers:
    """Outcomes of any mixture, some questions all wrong."""
    mixture = chance.dirichlet(np.full(8, 0.7))
    return answers_of(chance.choice(np.arange(-2, 6), (QUESTIONS, N), p=mixture), np.arange(QUESTIONS) // 3)


def with_faults(answers: Answers, reason: Reason, chance: np.random.Generator) -> Answers:
    """The judge fails on some answers with this reason, and some have no response at all."""
    unjudged, lost = chance.random((2, QUESTIONS, N)) < chance.uniform(0, 0.5, (2, 1, 1))
    outcomes = np.where(unjudged | lost, np.int8(of_judgement(Unscorable(reason))), answers.outcomes)
    had = answers.responses
    responses = replace(
        had,
        predicted=had.predicted & ~lost,
        pair=np.where(lost, -1, had.pair),
        tokens=np.where(lost, -1, had.tokens),
        capped=had.capped & ~lost,
        ended=had.ended & ~lost,
    )
    return Answers(responses, outcomes, {})


def estimates(cell: Measured) -> Iterator[tuple[str, Estimate]]:
    yield from cell.cell.metrics.items()
    for name, curve in cell.cell.best_of.items():
        yield from ((f"{name}@{k}", estimate) for k, estimate in enumerate(curve, 1))


def holds(bounds: Estimate, value: float | None) -> bool:
    if value is None:
        return True  # no number to hold
    low, high = bounds.lower_bound, bounds.upper_bound
    return (low is None or low <= value + 1e-9) and (high is None or value <= high + 1e-9)


def test_bounds_hold_the_value_without_faults_for_every_seed_and_reason() -> None:
    held, widened = 0, 0
    whole_before, seen_before = [measured(fault_free(np.random.default_rng(SEEDS)), "before")] * 2
    for seed in range(SEEDS):
        chance = np.random.default_rng(seed)
        reason = list(Reason)[seed % len(Reason)]
        true = fault_free(chance)
        whole = measured(true)
        seen = measured(with_faults(true, reason, chance))
        values = {name: estimate.value for name, estimate in estimates(whole)}
        checks = [holds(bounds, values[name]) for name, bounds in estimates(seen)]
        true_mean = average("both", [whole_before, whole], 0.95).metrics
        seen_mean = average("both", [seen_before, seen], 0.95).metrics
        checks += [holds(bounds, true_mean[name].value) for name, bounds in seen_mean.items()]
        apart = {one.metric: one.estimate.value for one in differences([(whole_before, whole)], 0.95)}
        checks += [holds(one.estimate, apart.get(one.metric)) for one in differences([(seen_before, seen)], 0.95)]
        whole_before, seen_before = whole, seen
        held += all(checks)
        widened += any(bounds.lower_bound != bounds.upper_bound for _, bounds in estimates(seen))
    assert held == SEEDS
    assert widened > SEEDS * 0.9


def test_without_faults_bounds_are_the_value() -> None:
    for seed in range(10):
        cell = measured(fault_free(np.random.default_rng(seed)))
        for name, estimate in estimates(cell):
            assert estimate.lower_bound == estimate.upper_bound == estimate.value, name


def test_a_failure_is_never_counted_as_wrong() -> None:
    cell = measured(answers_of([[Outcome.SPECIFIC], [Outcome.UNSCORED]])).cell
    assert cell.metrics["correctness"].value == 1
    assert cell.metrics["rate/wrong"] == Estimate(0.0, 0.0, round(1 - 0.025**0.5, 10), 0.0, 0.5)
    none = measured(answers_of([[Outcome.UNSCORED]])).cell.metrics["hm"]
    assert (none.value, none.lower_bound, none.upper_bound) == (None, 0.0, 1.0)
