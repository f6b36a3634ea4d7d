"""Predict stage: asks each model in turn what it has not answered yet, and writes the tables of predictions."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from speciarl.evaluation import tables
from speciarl.evaluation.config import EvaluationConfig
from speciarl.evaluation.matrix import Asked, asked
from speciarl.evaluation.predict.answer_store import AnswerStore
from speciarl.evaluation.predict.cell import Cell, failed, reusable
from speciarl.evaluation.predict.engine import Engine
from speciarl.evaluation.predict.generate import Generated, generate
from speciarl.evaluation.predict.question import prompt_text
from speciarl.evaluation.predict.subject import EngineOf, Subject, Weights, engine_of, facts, weights


@dataclass(frozen=True)
class Predicted:
    """What the stage did for a cell."""

    asked: Asked
    questions: int
    made: int
    """New answers."""
    known: int
    """Answers that were there."""
    failed: dict[str, int]
    """Questions without an answer, by failure."""


async def predict(config: EvaluationConfig, console: Console, make: EngineOf = engine_of) -> list[Predicted]:
    """Run the stage, model by model. What is complete already is neither loaded nor read.

    Raises a SpeciaRLError in one line for a model or data set that cannot be used, and OSError for a full disk; the
    answers until then are kept.
    """
    done: list[Predicted] = []
    with _progress(console) as progress:
        for one in weights(config, console.print, make):
            async with _Loaded(one) as loaded:
                for of in one.subjects:
                    console.print(of.described(), style="dim", highlight=False, markup=False)
                    cells = [cell for cell in asked(config) if cell.model == of.name]
                    with contextlib.closing(_Opened(config.answers_folder, of)) as answers:
                        for cell in cells:
                            done.append(await _predict_cell(config, cell, of, answers, loaded, progress))
    return done


class _Opened:
    """A model's answers, opened when they are first needed."""

    def __init__(self, folder: Path, of: Subject) -> None:
        self._folder = folder
        self._of = of
        self._store: AnswerStore | None = None

    def __call__(self) -> AnswerStore:
        if self._store is None:
            self._store = AnswerStore(self._folder, self._of.setup)
        return self._store

    def close(self) -> None:
        if self._store is not None:
            self._store.close()


class _Loaded:
    """An engine, started when it is first needed."""

    def __init__(self, of: Weights) -> None:
        self._of = of
        self._started = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._started:
            await self._of.engine.aclose()

    async def __call__(self) -> Engine:
        """The engine, started."""
        engine = self._of.engine
        if not self._started:
            self._started = True  # before it is, so that a start which fails half-way is cleaned up
            await engine.start()
        return engine


async def _predict_cell(
    config: EvaluationConfig, one: Asked, of: Subject, answers: _Opened, loaded: _Loaded, progress: Progress
) -> Predicted:
    dataset, sampling = config.datasets[one.dataset], config.sampling_of(one.model)
    cell = Cell.of(one.dataset, dataset, prompt_text(one.prompt), sampling, of.sampling.greedy)
    path, known = one.predictions(config.out), facts(config, one, of)
    bar = progress.add_task(str(one), total=cell.answers, failed="")
    if reusable(path, known):
        progress.update(bar, completed=cell.answers)
        return Predicted(one, len(cell.chosen), 0, cell.answers, tables.facts(path)["failed"])
    store = answers()
    missing = cell.missing(store)
    first = next(missing, None)
    outcome = Generated()
    if first is not None:
        progress.update(bar, description=f"{one}: loading")
        engine = await loaded()
        progress.update(bar, description=str(one))
        still = itertools.chain([first], missing)
        outcome = await generate(still, engine, of.sampling, store, config.engine.window, _teller(progress, bar))
    progress.update(bar, completed=cell.answers)
    found = failed(outcome.failures)
    cell.write(path, store, known["setup"], outcome.failures, {**known, **cell.content(), "failed": found})
    return Predicted(one, len(cell.chosen), outcome.made, cell.answers - cell.lacking, found)


def _teller(progress: Progress, bar: TaskID) -> Callable[[int, int], None]:
    failures = 0

    def tell(made: int, failed: int) -> None:
        nonlocal failures
        failures += failed
        progress.update(bar, advance=made, failed=f"[red]{failures} failed" if failures else "")

    return tell


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[failed]}"),
        console=console,
    )
