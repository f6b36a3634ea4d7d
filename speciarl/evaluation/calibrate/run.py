"""Run of a calibration: gold pairs, a judge and, where one is given, an evaluation to correct."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from speciarl.errors import ConfigError, DataError
from speciarl.evaluation.calibrate.calibration import Calibration, CorrectedCell, calibrate
from speciarl.evaluation.calibrate.cells import judged_cells, mean_hm, settings
from speciarl.evaluation.calibrate.correction import correct
from speciarl.evaluation.calibrate.gold import from_data, from_file, gold_pairs
from speciarl.evaluation.calibrate.judged import Judged
from speciarl.evaluation.calibrate.judging import try_judge
from speciarl.evaluation.calibrate.ranking import ranking_stability
from speciarl.evaluation.config import BootstrapConfig
from speciarl.evaluation.verify.judge import identity
from speciarl.evaluation.verify.standing import difference


@dataclass(frozen=True)
class Wanted:
    """What to calibrate on, and what to correct."""

    data: tuple[Path, ...]
    """Data files whose labels make the hierarchy; or `taxonomy`."""
    taxonomy: Path | None
    run: Path | None
    """Folder of an evaluation."""
    per_kind: int
    repeats: int
    seed: int


def calibration_of(judge: str, overrides: Sequence[str], wanted: Wanted) -> Calibration:
    """Calibrate a judge, given as for ``speciarl verifier audit``. Blocks.

    Raises ConfigError, DataError and VerifierStartError, each in one line.
    """
    from speciarl.verifier_server.audit import running
    from speciarl.verifier_server.judge_config import judge_config

    if bool(wanted.data) == (wanted.taxonomy is not None):
        raise ConfigError("give the hierarchy by --data or by --taxonomy, one of them")
    taxonomy = from_file(wanted.taxonomy) if wanted.taxonomy is not None else from_data(wanted.data)
    pairs = gold_pairs(taxonomy, wanted.per_kind, wanted.seed)
    described = judge_config(judge, overrides)
    known = asyncio.run(identity(described))
    with running(described) as live:
        trial = asyncio.run(try_judge(live, [pair.pair for pair in pairs], wanted.repeats))
    calibration, judged = calibrate(described.name, known, pairs, trial, BootstrapConfig(seed=wanted.seed))
    return calibration if wanted.run is None else _with_run(calibration, judged, known, wanted.run)


def _with_run(calibration: Calibration, judged: Judged, known: Mapping[str, Any], out: Path) -> Calibration:
    config = settings(out)
    cells = list(judged_cells(config, out))
    ours = [cell for cell in cells if cell.identity == known]
    if not ours:
        others = {cell.judge: difference(cell.identity, known) for cell in cells}
        told = ", ".join(f"{name} differs in {field}" for name, field in others.items()) or "there are no verdicts"
        raise DataError(f"{out}: no verdicts of this judge ({told}); calibrate a judge of that evaluation")
    corrected = [
        CorrectedCell(
            cell.asked.model,
            cell.asked.dataset,
            cell.asked.prompt,
            correct(judged, cell.by_class, config.metrics, config.metrics.bootstrap, cell.asked.dataset),
        )
        for cell in ours
    ]
    return replace(calibration, rankings=ranking_stability(mean_hm(cells, config)), corrected=corrected)
