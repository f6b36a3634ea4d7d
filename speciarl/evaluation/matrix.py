"""Matrix of an evaluation: its cells, and where each keeps its tables."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from speciarl.evaluation.config import AS_BUILT, EvaluationConfig, prompt_name

RESULTS = "results.json"
SETTINGS = "evaluation.yaml"
LOG = "engines.log"
"""What vLLM and Ray say."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One model on one data set with one prompt: what is predicted once, whatever the number of judges."""

    model: str
    dataset: str
    prompt: str
    """As in the configuration: a name, or the path of a .txt file."""

    def predictions(self, out: Path) -> Path:
        """File of its predictions."""
        return out / "predictions" / self.model / self.dataset / f"{prompt_name(self.prompt)}.parquet"

    def verdicts(self, out: Path, judge: str) -> Path:
        """File of a judge's verdicts on them."""
        return out / "verdicts" / judge / self.model / self.dataset / f"{prompt_name(self.prompt)}.parquet"

    def __str__(self) -> str:
        prompt = "" if self.prompt == AS_BUILT else f" / {prompt_name(self.prompt)}"
        return f"{self.model} / {self.dataset}{prompt}"


def asked(config: EvaluationConfig) -> list[Asked]:
    """All that is predicted, model by model, since loading one is what costs."""
    return [Asked(*names) for names in itertools.product(config.models, config.datasets, config.prompts)]


def judged(config: EvaluationConfig) -> Iterator[tuple[str, Asked]]:
    """All that is judged, judge by judge."""
    return itertools.product(config.judges, asked(config))
