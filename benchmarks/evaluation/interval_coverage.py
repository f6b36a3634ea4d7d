"""How often intervals hold the truth, and how often two equal models are told apart, in simulated evaluations.

    python benchmarks/evaluation/interval_coverage.py
    python benchmarks/evaluation/interval_coverage.py --simulations 5000

Each simulation draws classes from a population in which some are harder than others, and some named more coarsely, then
11 to 40 questions of each. The truth is that of the whole population. Coverage should be 95 %, rejections 5 %.
"""

from __future__ import annotations

import argparse
import functools

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from speciarl.evaluation.config import BootstrapConfig, MetricsConfig
from speciarl.evaluation.metrics import bootstrap, scores
from speciarl.evaluation.outcome import Outcome

CLASSES = (37, 100, 200)
"""As in Pets; Aircraft and Food; CUB and Cars."""
QUESTIONS = (11, 40)
HARDNESS = (1.7, 1.2)
"""Log-odds of a right answer over classes: mean and standard deviation. About .80 are right."""
COARSENESS = (0.8, 1.0)
"""Log-odds of an exact name among right answers."""
TOGETHER = 0.5
"""Correlation of the two over classes."""
OWN = 0.5
"""Part of the classes' spread that is the model's own; the rest all models share."""
STEPS = (1.0, 2.0)
"""By how much less exact a less specific and a generic name are, in log-odds."""
OUTCOMES = (Outcome.WRONG, Outcome.GENERIC, Outcome.LESS_SPECIFIC, Outcome.SPECIFIC)


def class_effects(chance: np.random.Generator, classes: int) -> NDArray[np.float64]:
    """Standard normal effects of classes on being right and on being exact, shape (classes, 2)."""
    right, exact = chance.standard_normal((2, classes))
    return np.stack([right, TOGETHER * right + np.sqrt(1 - TOGETHER**2) * exact], 1)


def probabilities(effects: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities of the four outcomes, shape (classes, 4)."""
    right = _logistic(HARDNESS[0] + HARDNESS[1] * effects[:, 0])
    exact = COARSENESS[0] + COARSENESS[1] * effects[:, 1]
    at_least = [np.ones(len(effects)), _logistic(exact + STEPS[0]), _logistic(exact)]
    graded = -np.diff(at_least, axis=0, append=0)
    return np.concatenate([(1 - right)[:, None], (right * graded).T], 1)


@functools.cache
def truth() -> dict[str, float]:
    """The metrics of the population: of a million classes, without sampling questions."""
    grading = scores.Grading.of(MetricsConfig())
    effects = class_effects(np.random.default_rng(0), 1_000_000)
    sums = _nine(probabilities(effects).mean(0))
    return {name: float(getattr(grading, name)(sums)) for name in scores.MAIN}


def simulate(classes: int, simulations: int, draws: int = 1000) -> dict[str, tuple[float, float]]:
    """For each main metric, the share of intervals that hold the truth, and of true nulls that are rejected."""
    grading, level = scores.Grading.of(MetricsConfig()), BootstrapConfig().level
    config = BootstrapConfig(draws=draws)
    true = truth()
    chance = np.random.Generator(np.random.PCG64([classes]))
    held, rejected = (dict.fromkeys(scores.MAIN, 0) for _ in range(2))
    for number in range(simulations):
        questions = chance.integers(QUESTIONS[0], QUESTIONS[1] + 1, classes)
        common = class_effects(chance, classes)
        sums = [
            _nine(chance.multinomial(questions, probabilities(_mixed(common, class_effects(chance, classes)))))
            for _ in range(2)
        ]
        drawn = bootstrap.draw_sums(np.concatenate(sums, 1), config, f"simulation {number}")
        first, second = np.split(drawn, 2, axis=1)
        for name in scores.MAIN:
            statistic = getattr(grading, name)
            one, other = (float(statistic(each.sum(0))) for each in sums)
            low, high = spread(statistic(first), classes).interval(one, level, (0, 1))
            held[name] += low <= true[name] <= high
            rejected[name] += spread(statistic(second) - statistic(first), classes).p(other - one) < 1 - level
    return {name: (held[name] / simulations, rejected[name] / simulations) for name in scores.MAIN}


def spread(draws: NDArray[np.float64], classes: int) -> bootstrap.Spread:
    """The spread of draws, of which there is one for two classes and more."""
    found = bootstrap.Spread.of(draws, classes)
    assert found is not None
    return found


def _mixed(common: NDArray[np.float64], own: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.sqrt(1 - OWN**2) * common + OWN * own


def _nine(four: NDArray[np.float64]) -> NDArray[np.float64]:
    wide = np.zeros((*four.shape[:-1], scores.COLUMNS))
    wide[..., [scores.column(outcome) for outcome in OUTCOMES]] = four
    return wide


def _logistic(odds: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-odds))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=600)
    parser.add_argument("--classes", type=int, nargs="+", default=CLASSES)
    settings = parser.parse_args()
    simulations, sizes = settings.simulations, settings.classes
    true = truth()
    table = Table("metric", "classes", "coverage", "null rejected", title=f"{simulations} simulations")
    found = {classes: simulate(classes, simulations) for classes in sizes}
    for name in scores.MAIN:
        for classes in sizes:
            coverage, rejections = found[classes][name]
            table.add_row(f"{name} ({true[name]:.3f})", str(classes), f"{coverage:.1%}", f"{rejections:.1%}")
    Console().print(table)


if __name__ == "__main__":
    main()
