"""Runs to correct: the outcomes of an evaluation's cells, by class, as its judges saw them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from speciarl.errors import DataError
from speciarl.evaluation import matrix, tables
from speciarl.evaluation.config import EvaluationConfig, parse
from speciarl.evaluation.matrix import Asked
from speciarl.evaluation.metrics import answers, responses
from speciarl.evaluation.metrics.bootstrap import class_sums
from speciarl.evaluation.metrics.metric import Floats
from speciarl.evaluation.metrics.scores import Grading, counts


@dataclass(frozen=True)
class JudgedCell:
    """A cell as one judge saw it."""

    judge: str
    """Its name in the evaluation."""
    identity: Mapping[str, Any]
    """Identity of the judge, from the table of verdicts."""
    asked: Asked
    by_class: Floats
    """Number of answers with each outcome, unscored first, by class: shape (classes, 9)."""


def settings(out: Path) -> EvaluationConfig:
    """The settings of the evaluation in a folder; raises DataError when there is none, ConfigError for wrong ones."""
    file = out / matrix.SETTINGS
    try:
        plain = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror}); give the folder of an evaluation") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{file} is no YAML; run the evaluation again") from error
    if not isinstance(plain, Mapping):
        raise DataError(f"{file} holds no settings; run the evaluation again")
    return parse(plain)


def judged_cells(config: EvaluationConfig, out: Path) -> Iterator[JudgedCell]:
    """All cells with a table of verdicts, judge by judge; raises DataError in one line for a damaged one."""
    for judge, asked in matrix.judged(config):
        verdicts = asked.verdicts(out, judge)
        if not verdicts.exists():
            continue
        predictions = asked.predictions(out)
        written = responses.load(predictions)
        outcomes = answers.load(verdicts, predictions, written, config.metrics.too_long_chars).outcomes
        by_class = class_sums(counts(outcomes), written.classes, len(written.class_names))
        yield JudgedCell(judge, tables.facts(verdicts)["judge"], asked, by_class)


def mean_hm(cells: list[JudgedCell], config: EvaluationConfig) -> dict[str, dict[str, float]]:
    """HM of each ``MODEL / PROMPT``, averaged over data sets, by judge; those that lack a data set are left out."""
    grading = Grading.of(config.metrics)
    values: dict[str, dict[str, list[float]]] = {}
    for cell in cells:
        hm = float(grading.hm(cell.by_class.sum(0)))
        if not np.isnan(hm):
            label = f"{cell.asked.model} / {cell.asked.prompt}"
            values.setdefault(cell.judge, {}).setdefault(label, []).append(hm)
    return {
        judge: {label: float(np.mean(hms)) for label, hms in by_model.items() if len(hms) == len(config.datasets)}
        for judge, by_model in values.items()
    }
