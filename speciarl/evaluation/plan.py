"""Plan of an evaluation: what each cell reuses, why it does not reuse more, and what is left to do."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from speciarl.evaluation.config import EvaluationConfig
from speciarl.evaluation.matrix import Asked, asked
from speciarl.evaluation.predict.answer_store import AnswerStore, setups, store_file
from speciarl.evaluation.predict.cell import Cell, reusable
from speciarl.evaluation.predict.question import labels, prompt_text
from speciarl.evaluation.predict.subject import EngineOf, Subject, engine_of, facts, weights
from speciarl.evaluation.verify import judge
from speciarl.evaluation.verify.stage import facts_of
from speciarl.evaluation.verify.standing import standing


@dataclass(frozen=True)
class Planned:
    """What a cell has and lacks."""

    asked: Asked
    answers: int
    known: int
    """Answers that are there already."""
    missing: int
    """Answers to be made; rows that are the same question share theirs."""
    why: str
    """What keeps more answers from being reused: the field that differs; empty where nothing is missing."""
    verdicts: int
    """Most verdicts that it lacks, of all judges: equal answers share one, and the judges' stores are not looked
    into."""


def plan(config: EvaluationConfig, console: Console, make: EngineOf = engine_of) -> list[Planned]:
    """The plan, cell by cell. Hashes weights and reads images; loads no model and asks no judge.

    Raises a SpeciaRLError in one line for a model or data set that cannot be used.
    """
    judges = {name: judge.configuration(described, name, config.out) for name, described in config.judges.items()}
    identities = {name: asyncio.run(judge.identity(found)) for name, found in judges.items()}
    return [
        one
        for group in weights(config, console.print, make)
        for of in group.subjects
        for one in _cells(config, of, identities)
    ]


def show(planned: list[Planned], console: Console) -> None:
    """Print the plan as a table, with the sum of what is to be done."""
    table = Table("model / data set / prompt", "answers", "reused", "to make", "why not more")
    for one in planned:
        table.add_row(str(one.asked), str(one.answers), str(one.known), str(one.missing), one.why)
    console.print(table)
    answers, verdicts = sum(one.missing for one in planned), sum(one.verdicts for one in planned)
    console.print(f"{answers} answers to make; at most {verdicts} verdicts, fewer where answers are alike or judged")


def _cells(config: EvaluationConfig, of: Subject, judges: Mapping[str, Mapping[str, Any]]) -> Iterator[Planned]:
    sampling = config.sampling_of(of.name)
    with contextlib.ExitStack() as stack:
        store = None
        if store_file(config.answers_folder, of.setup).exists():
            store = AnswerStore(config.answers_folder, of.setup, read_only=True)
            stack.callback(store.close)
        nearest = "" if store is not None else _nearest(of.setup, list(setups(config.answers_folder)))
        for one in asked(config):
            if one.model != of.name:
                continue
            dataset = config.datasets[one.dataset]
            answers = len(labels(one.dataset, dataset)) * sampling.n
            if reusable(one.predictions(config.out), facts(config, one, of)):
                yield Planned(one, answers, answers, 0, "", _unjudged(config, one, answers, judges))
                continue
            cell = Cell.of(one.dataset, dataset, prompt_text(one.prompt), sampling, of.sampling.greedy)
            if store is None:
                yield Planned(one, cell.answers, 0, cell.answers, nearest, cell.answers * len(judges))
                continue
            # Without the images, which would not fit into memory.
            lacking: Counter[tuple[bytes, bytes]] = Counter()
            for part in cell.missing(store):
                lacking[part.prompt, part.images] += len(part.seeds)
            known = cell.answers - sum(lacking[row.prompt, row.images] for row in cell.rows)
            why = _why(store, lacking, sampling.n)
            unjudged = cell.answers * len(judges) if lacking else _unjudged(config, one, cell.answers, judges)
            yield Planned(one, cell.answers, known, lacking.total(), why, unjudged)


def _unjudged(config: EvaluationConfig, one: Asked, answers: int, judges: Mapping[str, Mapping[str, Any]]) -> int:
    """Answers of a cell for which there is no complete table of verdicts, summed over judges."""
    predictions, unjudged = one.predictions(config.out), 0
    for name, identity in judges.items():
        if predictions.exists():
            wanted = facts_of(name, identity, predictions, config.metrics.too_long_chars)
            if standing(one.verdicts(config.out, name), wanted).state == "complete":
                continue
        unjudged += answers
    return unjudged


def _why(store: AnswerStore, lacking: Mapping[tuple[bytes, bytes], int], n: int) -> str:
    """Why a store of the same set-up lacks answers to some questions (hashes of prompt and images)."""
    causes = []
    if any(count < n for count in lacking.values()):
        causes.append("n is larger, or not all were made")
    known = {store.knows_images(images) for (_, images), count in lacking.items() if count == n}
    if True in known:
        causes.append("prompt text (or seed)")
    if False in known:
        causes.append("images")
    return ", ".join(causes)


def _nearest(setup: Mapping[str, Any], known: list[dict[str, Any]]) -> str:
    """The fields in which the nearest of the known set-ups differs."""
    if not known:
        return "nothing answered yet"
    differing: list[list[str]] = [
        [name for name in sorted({*setup, *other}) if setup.get(name) != other.get(name)] for other in known
    ]
    return ", ".join(sorted(differing, key=lambda names: len(names))[0])
