"""Run of an evaluation: its four stages, all or one of them."""

from __future__ import annotations

import asyncio
import enum
from collections import Counter
from importlib import metadata

from rich.console import Console

import speciarl
from speciarl.evaluation import results
from speciarl.evaluation.compose import written
from speciarl.evaluation.config import EvaluationConfig
from speciarl.evaluation.matrix import LOG, RESULTS, SETTINGS
from speciarl.evaluation.quiet import logged_to
from speciarl.utils.atomic_files import write_text


class Stage(enum.StrEnum):
    """Stage of an evaluation; each starts from the files of those before it."""

    PREDICT = "predict"
    VERIFY = "verify"
    METRICS = "metrics"
    REPORT = "report"


def run(config: EvaluationConfig, console: Console, only: Stage | None = None) -> list[str]:
    """Run all stages, or only one; what an earlier run of the same command has done is not done again.

    Returns a line for each cell of which more is missing than the configuration allows. Raises a SpeciaRLError in one
    line, and OSError where a disk is full; what was done until then is kept.
    """
    config.out.mkdir(parents=True, exist_ok=True)
    write_text(config.out / SETTINGS, written(config))
    stages = list(Stage) if only is None else [only]
    problems: list[str] = []
    if Stage.PREDICT in stages:
        problems += _predict(config, console)
    if Stage.VERIFY in stages:
        problems += _verify(config)
    if Stage.METRICS in stages:
        from speciarl.evaluation.metrics import compute

        compute(config, config.out, versions()).save(config.out / RESULTS)
    if Stage.REPORT in stages:
        from speciarl.evaluation import report

        found = results.load(config.out / RESULTS)
        report.show(found, console)
        for file in report.write(config, found, config.out):
            console.print(f"{file}", highlight=False, markup=False)
    if stages[-1] in (Stage.METRICS, Stage.REPORT):
        problems = _over_budget(config)  # of results, which know both kinds
    return problems


def versions() -> dict[str, str]:
    """Versions of what the answers and numbers come from."""
    found = {"speciarl": speciarl.__version__}
    for name in ("vllm", "transformers", "torch", "numpy"):
        try:
            found[name] = metadata.version(name).split("+")[0]  # without the build: it computes the same
        except metadata.PackageNotFoundError:
            continue  # an evaluation with endpoints only needs neither
    return found


def _over_budget(config: EvaluationConfig) -> list[str]:
    from speciarl.evaluation.metrics import over_budget

    return over_budget(results.load(config.out / RESULTS), config)


def _predict(config: EvaluationConfig, console: Console) -> list[str]:
    from speciarl.evaluation.predict.stage import predict

    with logged_to(config.out / LOG) as terminal:
        done = asyncio.run(predict(config, terminal))
    made, known = sum(one.made for one in done), sum(one.known for one in done)
    failed: Counter[str] = Counter()
    for one in done:
        failed.update(one.failed)
    failures = ", ".join(f"{count} x {failure}" for failure, count in failed.items())
    console.print(f"{made} new answers, {known} known", highlight=False)
    if failures:
        console.print(f"questions without an answer: {failures}", style="red", highlight=False)
    return [
        f"{one.asked}: {sum(one.failed.values())} of {one.questions} questions failed, more than max_failed allows"
        for one in done
        if sum(one.failed.values()) > config.max_failed * one.questions
    ]


def _verify(config: EvaluationConfig) -> list[str]:
    from speciarl.evaluation.verify.stage import verify

    with logged_to(config.out / LOG) as terminal:
        done = verify(config, config.out, terminal)
    return [
        f"{one.asked} by {one.judge}: {one.unscored_share:.1%} of answers unscored, more than max_unscored allows"
        for one in done
        if one.unscored_share > config.max_unscored
    ]
