"""Coverage of the interval of a corrected HM: how often it holds the true value, for a planted judge.

python benchmarks/evaluation/correction_coverage.py [SIMULATIONS]
"""

import sys

import numpy as np

from speciarl.evaluation.calibrate.correction import correct
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
"""P(verdict | category)."""
TRUE = np.array([0.2, 0.05, 0.1, 0.25, 0.35, 0.05])


def simulate(chance: np.random.Generator, classes: int, per_category: int) -> tuple[bool, bool, float]:
    """Whether the corrected and the reported interval hold the true HM, and the corrected one's width."""
    gold = np.repeat(np.arange(6), per_category)
    said = np.concatenate([chance.choice(6, per_category, p=row) for row in PLANTED])
    nothing = np.full(len(gold), np.nan)
    judged = Judged(gold, said, np.tile(np.arange(per_category), 6), nothing, np.full((len(gold), 6), np.nan))
    rates = chance.dirichlet(TRUE * 20, classes)
    answers = np.array([chance.multinomial(20, row @ PLANTED) for row in rates], float)
    by_class = np.concatenate([np.zeros((classes, 3)), answers], 1)
    found = correct(judged, by_class, MetricsConfig(), BootstrapConfig(draws=300), "made")
    true = float(Grading.of(MetricsConfig()).hm(np.concatenate([np.zeros(3), TRUE])))
    ends = [(one.low or 0.0, one.high or 0.0) for one in (found.corrected, found.reported)]
    corrected, reported = (low <= true <= high for low, high in ends)
    return corrected, reported, ends[0][1] - ends[0][0]


def main() -> None:
    """Print coverage by number of classes and of gold pairs."""
    simulations = int(sys.argv[1]) if len(sys.argv) > 1 else 600
    for classes in (37, 100, 200):
        for per_category in (50, 200):
            chance = np.random.default_rng(classes)
            results = np.array([simulate(chance, classes, per_category) for _ in range(simulations)])
            corrected, reported, width = results.mean(0)
            print(
                f"{classes} classes, {per_category} gold pairs per category: corrected {corrected:.1%}, as judged "
                f"{reported:.1%}, mean width {width:.3f}"
            )


if __name__ == "__main__":
    main()
