"""Predict stage: asks each model in turn what it has not answered yet, and writes the tables of predictions."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from speciarl.evaluation import tables
from speciarl.evaluation.config import EvaluationConfig, ModelConfig, prompt_name
from speciarl.evaluation.matrix import Asked, asked
from speciarl.evaluation.models.canary import prove
from speciarl.evaluation.models.resolve import resolve
from speciarl.evaluation.models.resolved import ResolvedModel
from speciarl.evaluation.predict.answer_store import AnswerStore
from speciarl.evaluation.predict.cell import Cell, failed, file_sha, reusable
from speciarl.evaluation.predict.endpoint_engine import EndpointEngine
from speciarl.evaluation.predict.engine import Engine
from speciarl.evaluation.predict.generate import Generated, generate
from speciarl.evaluation.predict.key import setup_id
from speciarl.evaluation.predict.question import prompt_text
from speciarl.evaluation.predict.sampling import Sampling
from speciarl.evaluation.predict.sampling import resolve as resolve_sampling
from speciarl.evaluation.predict.vllm_engine import VllmEngine


@dataclass(frozen=True)
class Subject:
    """A model with all that decides its answers, before anything of it is loaded."""

    name: str
    engine: Engine
    sampling: Sampling
    origins: dict[str, str]
    """Where each sampling field comes from."""
    model: ResolvedModel | None
    """None for an endpoint."""

    def described(self) -> str:
        """One line for people: the sampling that takes effect, and whose it is."""
        fields = [f"{name} {value} ({self.origins[name]})" for name, value in self.sampling.as_dict().items()]
        return f"{self.name}: {self.model.described if self.model else 'endpoint'}; {', '.join(fields)}"


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


EngineOf = Callable[[ModelConfig, ResolvedModel | None, Sampling, EvaluationConfig], Engine]


def engine_of(
    model: ModelConfig, resolved: ResolvedModel | None, sampling: Sampling, config: EvaluationConfig
) -> Engine:
    """The engine of a model, not started."""
    if resolved is None:
        return EndpointEngine(model, sampling, config.engine)
    return VllmEngine(resolved, sampling, config.engine)


def subject(name: str, config: EvaluationConfig, say: Callable[[str], None], make: EngineOf = engine_of) -> Subject:
    """A model of the configuration with its weights hashed, a checkpoint converted; raises a SpeciaRLError in one
    line."""
    model = config.models[name]
    resolved = None if model.endpoint else resolve(model, config.answers_folder.parent / "models", say)
    sampling, origins = resolve_sampling(config.sampling, resolved.generation if resolved else {})
    return Subject(name, make(model, resolved, sampling, config), sampling, origins, resolved)


def facts(config: EvaluationConfig, one: Asked, of: Subject) -> dict[str, Any]:
    """What is known of a cell's table without reading an image."""
    setup = dict(of.engine.setup)
    return {
        "model": one.model,
        "dataset": one.dataset,
        "prompt": prompt_name(one.prompt),
        "file_sha": file_sha(config.datasets[one.dataset]),
        "prompt_override": prompt_text(one.prompt),
        "setup": setup_id(setup),
        "engine": setup["engine"],
        "model_sha": {"weights": setup.get("weights", setup.get("model")), "adapter": setup.get("adapter")},
        "pixels": {"min": config.engine.min_pixels, "max": config.engine.max_pixels},
        "sampling": {**of.sampling.as_dict(), "n": config.sampling.n, "seed": config.sampling.seed},
        "max_model_len": config.engine.max_model_len,
    }


async def predict(config: EvaluationConfig, console: Console, make: EngineOf = engine_of) -> list[Predicted]:
    """Run the stage, model by model. What is complete already is neither loaded nor read.

    Raises a SpeciaRLError in one line for a model or data set that cannot be used, and OSError for a full disk; the
    answers until then are kept.
    """
    done: list[Predicted] = []
    with _progress(console) as progress:
        for name, cells in itertools.groupby(asked(config), key=lambda one: one.model):
            of = subject(name, config, console.print, make)
            console.print(of.described(), style="dim", highlight=False, markup=False)
            async with _Loaded(of, config) as loaded:
                for one in cells:
                    done.append(await _predict_cell(one, loaded, progress))
    return done


class _Loaded:
    """A model's answers and its engine, each opened when it is first needed."""

    def __init__(self, of: Subject, config: EvaluationConfig) -> None:
        self.subject = of
        self.config = config
        self._store: AnswerStore | None = None
        self._started = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._started:
            await self.subject.engine.aclose()
        if self._store is not None:
            self._store.close()

    def store(self) -> AnswerStore:
        if self._store is None:
            self._store = AnswerStore(self.config.answers_folder, self.subject.engine.setup)
        return self._store

    async def engine(self) -> Engine:
        """The engine, started, and its adapter proved to work."""
        engine = self.subject.engine
        if not self._started:
            self._started = True  # before it is, so that a start which fails half-way is cleaned up
            await engine.start()
            if isinstance(engine, VllmEngine) and self.subject.model is not None:
                await prove(self.subject.model, engine)
        return engine


async def _predict_cell(one: Asked, loaded: _Loaded, progress: Progress) -> Predicted:
    config, path = loaded.config, one.predictions(loaded.config.out)
    known = facts(config, one, loaded.subject)
    greedy = loaded.subject.sampling.greedy
    cell = Cell.of(one.dataset, config.datasets[one.dataset], known["prompt_override"], config.sampling, greedy)
    bar = progress.add_task(str(one), total=cell.answers, failed="")
    if reusable(path, known):
        progress.update(bar, completed=cell.answers)
        return Predicted(one, len(cell.chosen), 0, cell.answers, tables.facts(path)["failed"])
    store = loaded.store()
    missing = cell.missing(store)
    first = next(missing, None)
    outcome = Generated()
    if first is not None:
        progress.update(bar, description=f"{one}: loading")
        engine = await loaded.engine()
        progress.update(bar, description=str(one))
        still = itertools.chain([first], missing)
        outcome = await generate(still, engine, store, config.engine.window, _teller(progress, bar))
    progress.update(bar, completed=cell.answers)
    found = failed(outcome.failures)
    cell.write(path, store, known["setup"], outcome.failures, {**known, **cell.content(), "failed": found})
    return Predicted(one, len(cell.chosen), outcome.made, cell.answers - outcome.made, found)


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
