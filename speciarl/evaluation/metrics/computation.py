"""Computation of all results of an evaluation from its tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from speciarl.evaluation import matrix
from speciarl.evaluation.config import EvaluationConfig
from speciarl.evaluation.metrics import answers, best_of, responses, scores, writing
from speciarl.evaluation.metrics.averages import average, groups
from speciarl.evaluation.metrics.cells import Measured, measure
from speciarl.evaluation.metrics.differences import differences
from speciarl.evaluation.metrics.similarity import Similarity
from speciarl.evaluation.results import Results


def compute(config: EvaluationConfig, out: Path, versions: Mapping[str, str]) -> Results:
    """All numbers of an evaluation, from the tables in its folder.

    Raises DataError in one line when a table is missing or is not about its cell, ConfigError when a similarity model
    cannot be loaded. The same tables and settings give the same results.
    """
    settings = config.metrics
    wanted = settings.similarity_model is not None or settings.concept_model is not None
    similarity = Similarity(settings) if wanted else None
    measured = _measure_all(config, out, similarity)
    level = settings.bootstrap.level
    by_place = {
        (judge, asked.model, asked.prompt, asked.dataset): measured[judge, asked]
        for judge, asked in matrix.judged(config)
    }
    grouped = groups({name: dataset.group for name, dataset in config.datasets.items()})
    runs = [(model, prompt) for model in config.models for prompt in config.prompts]
    return Results(
        name=config.name,
        settings=config.model_dump(mode="json"),
        versions=dict(versions),
        definitions=definitions(config) | (similarity.definitions() if similarity else {}),
        cells=[measured[place].cell for place in matrix.judged(config)],
        averages=[
            average(group, [by_place[judge, *run, dataset] for dataset in datasets], level)
            for judge in config.judges
            for run in runs
            for group, datasets in grouped.items()
        ],
        # Against the first run only: all pairs would make the correction for their number swallow what there is.
        differences=differences(
            (
                (by_place[judge, *runs[0], dataset], by_place[judge, *run, dataset])
                for judge in config.judges
                for dataset in config.datasets
                for run in runs[1:]
            ),
            level,
        ),
    )


def definitions(config: EvaluationConfig) -> dict[str, str]:
    """What each metric is that every evaluation has, in a sentence, by name."""
    settings = config.metrics
    defined = scores.definitions(settings) | writing.DEFINITIONS
    if any(config.sampling_of(model).n > 1 for model in config.models):
        defined |= {
            f"{best_of.PLAIN}{name}": f"{name.upper() if name == 'hm' else name.capitalize()} of the best of all "
            "answers to each question that are scored; the first of equal ones."
            for name in scores.MAIN
        }
        defined["best_of"] = (
            "Expected metrics of the best of k of the n answers to each question: the mean over all subsets of k "
            "(unbiased); questions with fewer than k scored answers take no part."
        )
    defined["interval"] = (
        f"{settings.bootstrap.level:.0%} confidence interval: Student's, with the standard error of a bootstrap of "
        f"{settings.bootstrap.draws} draws of classes with all their questions, on the scale of log-odds for shares. "
        "At an end of the scale that of as many classes, all alike; none for a difference that all classes share."
    )
    defined["bounds"] = "Lowest and highest value that the number could have, whatever the unscored answers are."
    return defined


def _measure_all(
    config: EvaluationConfig, out: Path, similarity: Similarity | None
) -> dict[tuple[str, matrix.Asked], Measured]:
    measured = {}
    for asked in matrix.asked(config):  # texts are the same for every judge, and cost most
        written = responses.load(asked.predictions(out))
        families = writing.families(written, config.sampling_of(asked.model).max_tokens)
        if similarity is not None:
            families += similarity.families(written)
        for judge in config.judges:
            judged = answers.load(
                asked.verdicts(out, judge), asked.predictions(out), written, config.metrics.too_long_chars
            )
            measured[judge, asked] = measure(config, asked, judge, judged, families)
    return measured
