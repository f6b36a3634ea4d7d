"""Document of a page: numbers, index and samples as plain data, within a budget of bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from speciarl.evaluation.config import EvaluationConfig
from speciarl.evaluation.outcome import Outcome
from speciarl.evaluation.report import outcomes
from speciarl.evaluation.report.outcomes import Questions
from speciarl.evaluation.report.page import index, pictures, samples
from speciarl.evaluation.report.page.choice import choose
from speciarl.evaluation.report.page.embed import as_json
from speciarl.evaluation.report.scopes import label, run_of, runs, scopes
from speciarl.evaluation.results import Estimate, Results

PAGE_BYTES = 9_500_000
"""Most bytes of the data in a page; the rest of it takes a few ten thousand."""
INDEX_BYTES = 6_000_000
TEXT_BYTES = 2_200_000
SAMPLES = 1000
"""Samples that are shown whole."""
SHORT = {
    Outcome.UNSCORED: "?", Outcome.TOO_LONG: "L", Outcome.UNPARSABLE: "U", Outcome.WRONG: "W", Outcome.ABSTAIN: "A",
    Outcome.GENERIC: "G", Outcome.LESS_SPECIFIC: "S\u2212", Outcome.SPECIFIC: "S", Outcome.MORE_SPECIFIC: "S+",
}  # fmt: skip


def numbers(results: Results) -> dict[str, Any]:
    """All numbers that the page draws, by scope and run; a run's place in ``runs`` is its number everywhere."""
    all_runs = runs(results)
    by_scope = [{row.run: row.metrics for row in scope.rows} for scope in scopes(results)]
    best: dict[str, list[Any]] = {}
    for cell in results.cells:
        row = best.setdefault(cell.dataset, [None] * len(all_runs))
        if cell.best_of:
            row[all_runs.index(run_of(cell))] = {
                name: [_rounded(estimate)[:3] for estimate in values] for name, values in sorted(cell.best_of.items())
            }
    return {
        "runs": [{"name": run.name, "label": label(run, results), "judge": run.judge} for run in all_runs],
        "judges": list(dict.fromkeys(run.judge for run in all_runs)),
        "scopes": [
            {"title": scope.name + (" (average)" if scope.average else ""), "datasets": scope.datasets}
            for scope in scopes(results)
        ],
        "values": [[_plain(metrics.get(run)) for run in all_runs] for metrics in by_scope],
        "best": best,
        "outcomes": [{"code": one.value, "label": one.label, "key": one.key, "short": SHORT[one]} for one in Outcome],
        "weights": dict(sorted(results.settings["metrics"]["weights"].items())),
        "abstain_is_wrong": results.settings["metrics"]["abstain_is_wrong"],
    }


def questions(
    config: EvaluationConfig, results: Results, out: Path, spent: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The index of all questions, and the samples that are shown whole; `spent` bytes are taken already."""
    everything = list(outcomes.load(results, out))
    all_runs = runs(results)
    columns = index.columns(everything, all_runs)
    indexed = index.index(everything, columns, all_runs, INDEX_BYTES)
    judge = all_runs[0].judge
    dataset = np.repeat(np.arange(len(everything)), [len(of) for of in everything])
    rows = choose([one.codes for one in columns if one.run.judge == judge and not one.best], dataset, SAMPLES)
    shown = samples.shortened(_samples(results, out, everything, rows, dataset), TEXT_BYTES)
    left = PAGE_BYTES - spent - len(as_json(indexed).encode()) - len(as_json(shown).encode())
    for one, picture in zip(shown, _pictures(config, shown), strict=True):
        left -= len(picture or "")
        one["picture"] = picture if left >= 0 else None
    return indexed, {"samples": shown}


def _samples(
    results: Results, out: Path, everything: Sequence[Questions], rows: Any, dataset: Any
) -> list[dict[str, Any]]:  # fmt: skip
    """The samples at the rows, in that order."""
    names = list(dict.fromkeys(run.name for run in runs(results)))
    judges = list(dict.fromkeys(run.judge for run in runs(results)))
    begins = np.cumsum([0, *(len(of) for of in everything)])
    ids = {int(row): everything[dataset[row]].sample_ids[int(row - begins[dataset[row]])].as_py() for row in rows}
    found: dict[int, Mapping[str, Any]] = {}
    for number, of in enumerate(everything):
        here = {row: name for row, name in ids.items() if dataset[row] == number}
        answered = samples.answers(outcomes.asked(results, of.dataset), out, list(here.values()), judges)
        found |= {row: answered[name] for row, name in here.items()}
    return [
        {
            "row": row, "id": name, "dataset": everything[dataset[row]].dataset, "path": found[row]["path"],
            "runs": [found[row]["runs"].get(run, []) for run in names],
        }
        for row, name in ids.items()
    ]  # fmt: skip


def _pictures(config: EvaluationConfig, shown: Sequence[Mapping[str, Any]]) -> list[str | None]:
    found: dict[tuple[str, str], str] = {}
    for dataset, about in config.datasets.items():
        ids = [one["id"] for one in shown if one["dataset"] == dataset]
        thumbnails = pictures.thumbnails(Path(about.file), ids) if ids else {}
        found |= {(dataset, name): picture for name, picture in thumbnails.items()}
    return [found.get((one["dataset"], one["id"])) for one in shown]


def _plain(metrics: Mapping[str, Estimate] | None) -> dict[str, Any] | None:
    return None if metrics is None else {name: _rounded(estimate) for name, estimate in sorted(metrics.items())}


def _rounded(estimate: Estimate) -> list[float | None]:
    values = (estimate.value, estimate.low, estimate.high, estimate.lower_bound, estimate.upper_bound)
    return [None if value is None else round(value, 5) for value in values]
