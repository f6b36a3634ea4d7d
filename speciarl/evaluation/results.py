"""Results of an evaluation: every number of every cell with its interval and its bounds, as kept in results.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from speciarl.errors import DataError
from speciarl.utils.atomic_files import write_text

VERSION = 1


@dataclass(frozen=True)
class Estimate:
    """A number with what is not known about it. NaN never occurs: what is undefined is None."""

    value: float | None
    low: float | None = None
    """Lower end of the 95 % interval (bootstrap clustered on class); None where none is computed."""
    high: float | None = None
    lower_bound: float | None = None
    """The value if every unscored answer were as bad as can be for it; equals `value` where all are scored."""
    upper_bound: float | None = None


@dataclass(frozen=True)
class Cell:
    """Results of one model on one data set with one prompt, by one judge."""

    model: str
    dataset: str
    prompt: str
    judge: str
    group: str
    """Group of data sets over which it is averaged; empty for none."""
    questions: int
    answers: int
    """All of them, failed and unscored ones included."""
    classes: int
    metrics: Mapping[str, Estimate]
    """By name: correctness, specificity, hm, rate/wrong, …, see `speciarl.evaluation.metrics`."""
    best_of: Mapping[str, list[Estimate]] = field(default_factory=dict)
    """Metrics of the best of k answers, by name (correctness, specificity, hm), for k = 1, 2, …; empty where n is 1."""
    unscored: Mapping[str, int] = field(default_factory=dict)
    """Answers without a verdict, by reason."""
    failed: Mapping[str, int] = field(default_factory=dict)
    """Questions without a prediction, by failure; they are among the unscored."""


@dataclass(frozen=True)
class Average:
    """Mean over the data sets of a group, each of which counts alike."""

    model: str
    prompt: str
    judge: str
    group: str
    datasets: list[str]
    metrics: Mapping[str, Estimate]


@dataclass(frozen=True)
class Difference:
    """One number of two cells that answered the same questions; paired, `second` minus `first`."""

    first: str
    """``MODEL/PROMPT`` of the first cell."""
    second: str
    dataset: str
    judge: str
    metric: str
    estimate: Estimate
    p: float
    """Two-sided, of no difference."""
    p_holm: float
    """The same, corrected for all differences of the report (Holm)."""
    detectable: float
    """Smallest true difference that such data would show (power .8 at level .05); 1 where every class differs by the
    same, which tells nothing of it."""

    @property
    def sure(self) -> bool:
        """Whether there is a difference, after correction and whatever the unscored answers are."""
        low, high = self.estimate.lower_bound, self.estimate.upper_bound
        return self.p_holm < 0.05 and (low is None or high is None or low > 0 or high < 0)


@dataclass(frozen=True)
class Results:
    """All numbers of an evaluation."""

    name: str
    settings: Mapping[str, Any]
    """The resolved configuration; repeats the evaluation."""
    versions: Mapping[str, str]
    definitions: Mapping[str, str]
    """What each metric is, in a sentence, by name."""
    cells: list[Cell]
    averages: list[Average] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """Write results.json in one piece; the same results give the same bytes."""
        content = {"version": VERSION, **asdict(self)}
        write_text(path, json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def load(path: Path) -> Results:
    """The results in a file; raises DataError in one line when it is missing or of another kind."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("version") != VERSION:
            raise DataError(f"{path} was written by another version of SpeciaRL; run `speciarl evaluate` again")
        cells = [_cell(cell) for cell in content.pop("cells")]
        averages = [Average(**_measured(average)) for average in content.pop("averages")]
        differences = [
            Difference(**{**difference, "estimate": Estimate(**difference["estimate"])})
            for difference in content.pop("differences")
        ]
        return Results(cells=cells, averages=averages, differences=differences, **content)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); run `speciarl evaluate` first") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{path} holds no results of an evaluation; give another file") from error


def _cell(plain: Mapping[str, Any]) -> Cell:
    best_of = {name: [Estimate(**one) for one in values] for name, values in plain["best_of"].items()}
    return Cell(**{**_measured(plain), "best_of": best_of})


def _measured(plain: Mapping[str, Any]) -> dict[str, Any]:
    return {**plain, "metrics": {name: Estimate(**one) for name, one in plain["metrics"].items()}}
