"""Run of an evaluation: its four stages, all or one of them."""

from __future__ import annotations

import asyncio
import enum
from collections import Counter
from importlib import metadata

from rich.console import Console

import speciarl
from speciarl.errors import DataError
from speciarl.evaluation import results, tables
from speciarl.evaluation.compose import written
from speciarl.evaluation.config import EvaluationConfig
from speciarl.evaluation.matrix import LOG, RESULTS, SETTINGS, asked
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
    stages = list(Stage) if only is None else [only]
    problems: list[str] = []
    if Stage.PREDICT in stages:
        _refuse_unfit(config)
    else:
        _refuse_other_settings(config)
    config.out.mkdir(parents=True, exist_ok=True)
    write_text(config.out / SETTINGS, written(config))
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


def _refuse_unfit(config: EvaluationConfig) -> None:
    """Raise a SpeciaRLError for a data set, prompt or judge that cannot be used, before hours are spent on others."""
    from speciarl.evaluation.predict.question import labels, prompt_text
    from speciarl.evaluation.verify.judge import configuration

    for name, dataset in config.datasets.items():
        labels(name, dataset)
    for prompt in config.prompts:
        prompt_text(prompt)
    for name, judge in config.judges.items():
        configuration(judge, name, config.out)


def _refuse_other_settings(config: EvaluationConfig) -> None:
    """Raise DataError where a table of predictions was made with other settings than these, which would be written
    beside its numbers."""
    from speciarl.evaluation.predict.question import prompt_text

    for one in asked(config):
        path = one.predictions(config.out)
        known = tables.facts(path)
        if "setup" not in known:
            continue  # others' files, of which that is not known
        sampling = config.sampling_of(one.model).model_dump()
        wanted = {name: value for name, value in sampling.items() if value is not None}
        found = {name: known["sampling"][name] for name in wanted}
        differing = [f"sampling.{name}" for name in wanted if found[name] != wanted[name]]
        if known["prompt_override"] != prompt_text(one.prompt):
            differing.append("prompts")
        if differing:
            raise DataError(f"{path} was made with another {differing[0]}; run the stage `predict` again")


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
