"""Calibration: all that is found out about one judge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from speciarl.category import Category
from speciarl.evaluation.calibrate.agreement import (
    PLAIN,
    QUADRATIC,
    accuracy,
    channel_estimates,
    confusion,
    estimated_kappa,
    precision,
    recall,
)
from speciarl.evaluation.calibrate.correction import Corrected
from speciarl.evaluation.calibrate.gold import GoldPair, Kind
from speciarl.evaluation.calibrate.judged import Judged, judged
from speciarl.evaluation.calibrate.judging import Trial
from speciarl.evaluation.calibrate.proportion import proportion
from speciarl.evaluation.calibrate.ranking import RankAgreement
from speciarl.evaluation.calibrate.reliability import MarginBin, by_margin, expected_calibration_error, flip_rate
from speciarl.evaluation.config import BootstrapConfig
from speciarl.evaluation.results import Estimate
from speciarl.verdict import Unscorable


@dataclass(frozen=True)
class CorrectedCell:
    """HM of one cell of a run."""

    model: str
    dataset: str
    prompt: str
    hm: Corrected


@dataclass(frozen=True)
class Calibration:
    """What a judge is worth on pairs whose category is known."""

    judge: str
    identity: Mapping[str, Any]
    """What tells it from other judges."""
    seed: int
    kinds: Mapping[str, int]
    """Pairs by kind."""
    truths: int
    """Distinct ground truths, over which intervals are clustered."""
    unscored: Mapping[str, int]
    """Pairs without a verdict, by reason. They take no part in anything else."""
    counts: list[list[int]]
    """Pairs by gold category (rows) and verdict, shape (6, 6)."""
    confusion: list[list[Estimate]]
    """The same as shares of each row."""
    accuracy: Estimate
    kappa: Estimate
    kappa_quadratic: Estimate
    """Kappa weighted by the square of the steps between categories."""
    precision: Mapping[str, Estimate]
    """By category."""
    recall: Mapping[str, Estimate]
    accuracy_by_kind: Mapping[str, Estimate]
    margins: list[MarginBin]
    calibration_error: float | None
    """Expected calibration error of the verdicts' probabilities."""
    repeats: int
    """Pairs that were asked for again."""
    flips_repeated: Estimate
    """Share of them with another category when asked for twice, one at a time."""
    flips_under_load: Estimate
    """Share of them with another category when asked for among many and alone."""
    rankings: list[RankAgreement] = field(default_factory=list)
    corrected: list[CorrectedCell] = field(default_factory=list)

    @property
    def unscored_share(self) -> float:
        """Share of pairs without a verdict, in [0, 1]."""
        return sum(self.unscored.values()) / sum(self.kinds.values())


def calibrate(
    name: str,
    identity: Mapping[str, Any],
    pairs: Sequence[GoldPair],
    trial: Trial,
    config: BootstrapConfig,
) -> tuple[Calibration, Judged]:
    """The calibration that a trial of a judge on gold pairs gives, and the judged pairs, for corrections."""
    found = judged(pairs, trial.under_load)
    some = [pairs[index] for index in trial.repeated]
    first, second = (judged(some, judgements).said for judgements in trial.alone)
    loaded, truths = found.said[trial.repeated], found.truths[trial.repeated]
    kinds = np.array([pair.kind.value for pair in pairs])
    of_kind = {kind.value: found.scored & (kinds == kind.value) for kind in Kind if kind.value in kinds}
    unscored = Counter(one.reason.value for one in trial.under_load if isinstance(one, Unscorable))
    calibration = Calibration(
        judge=name,
        identity=identity,
        seed=config.seed,
        kinds={kind: int((kinds == kind).sum()) for kind in of_kind},
        truths=int(found.truths.max()) + 1,
        unscored=dict(sorted(unscored.items())),
        counts=confusion(found).astype(int).tolist(),
        confusion=channel_estimates(found),
        accuracy=accuracy(found),
        kappa=estimated_kappa(found, PLAIN, config),
        kappa_quadratic=estimated_kappa(found, QUADRATIC, config),
        precision={category.name.lower(): precision(found, category) for category in Category},
        recall={category.name.lower(): recall(found, category) for category in Category},
        accuracy_by_kind={kind: proportion(found.right[which], found.truths[which]) for kind, which in of_kind.items()},
        margins=by_margin(found),
        calibration_error=expected_calibration_error(found),
        repeats=len(some),
        flips_repeated=flip_rate(first, second, truths),
        flips_under_load=flip_rate(loaded, first, truths),
    )
    return calibration, found
