"""Subject: a model with all that decides its answers, found out before anything of it is loaded."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from speciarl.evaluation.config import EvaluationConfig, ModelConfig, prompt_name
from speciarl.evaluation.matrix import Asked
from speciarl.evaluation.models import IdentifiedModel, identify
from speciarl.evaluation.predict.cell import file_sha
from speciarl.evaluation.predict.endpoint_engine import EndpointEngine
from speciarl.evaluation.predict.engine import Engine
from speciarl.evaluation.predict.key import setup_id
from speciarl.evaluation.predict.question import prompt_text
from speciarl.evaluation.predict.sampling import Sampling
from speciarl.evaluation.predict.sampling import resolve as resolve_sampling
from speciarl.evaluation.predict.vllm_engine import VllmEngine


@dataclass(frozen=True)
class Subject:
    """A model with all that decides its answers, before anything of it is loaded."""

    name: str
    setup: Mapping[str, Any]
    """What its answers are kept under: engine, weights and sampling."""
    sampling: Sampling
    origins: Mapping[str, str]
    """Where each sampling field comes from."""

    def described(self) -> str:
        """One line for people: the sampling that takes effect, and whose it is."""
        by_origin: dict[str, list[str]] = {}
        for name, value in self.sampling.as_dict().items():
            by_origin.setdefault(self.origins[name], []).append(f"{name} {value:g}")
        return f"{self.name}: " + "; ".join(f"{', '.join(fields)} ({origin})" for origin, fields in by_origin.items())


@dataclass(frozen=True)
class Weights:
    """Weights, or an endpoint, and the models that answer with them: they differ in sampling only."""

    engine: Engine
    subjects: list[Subject]


EngineOf = Callable[[ModelConfig, IdentifiedModel | None, EvaluationConfig, Callable[[str], None]], Engine]


def engine_of(
    model: ModelConfig, found: IdentifiedModel | None, config: EvaluationConfig, say: Callable[[str], None]
) -> Engine:
    """The engine of a model, not started."""
    if found is None:
        return EndpointEngine(model, config.engine)
    return VllmEngine(found, config.engine, config.answers_folder.parent / "models", say)


def weights(config: EvaluationConfig, say: Callable[[str], None], make: EngineOf = engine_of) -> Iterator[Weights]:
    """The models of a configuration, one after the other, hashed; nothing is converted or loaded.

    Raises a SpeciaRLError in one line for a model that cannot be used.
    """
    named = config.models.items()
    for model, members in itertools.groupby(named, key=lambda item: item[1].model_copy(update={"sampling": None})):
        found = None if model.endpoint else identify(model, say)
        engine = make(model, found, config, say)
        subjects = []
        for name, _ in members:
            sampling, origins = resolve_sampling(config.sampling_of(name), found.generation if found else {})
            subjects.append(Subject(name, {**engine.setup, **sampling.as_dict()}, sampling, origins))
        yield Weights(engine, subjects)


def facts(config: EvaluationConfig, one: Asked, of: Subject) -> dict[str, Any]:
    """What is known of a cell's table without reading an image."""
    sampling = config.sampling_of(one.model)
    return {
        "model": one.model,
        "dataset": one.dataset,
        "prompt": prompt_name(one.prompt),
        "file_sha": file_sha(config.datasets[one.dataset]),
        "prompt_override": prompt_text(one.prompt),
        "setup": setup_id(of.setup),
        "engine": of.setup["engine"],
        "model_sha": {"weights": of.setup.get("weights", of.setup.get("model")), "adapter": of.setup.get("adapter")},
        "pixels": {"min": of.setup.get("min_pixels"), "max": of.setup.get("max_pixels")},  # an endpoint has its own
        "sampling": {**of.sampling.as_dict(), "n": sampling.n, "seed": sampling.seed},
        "max_model_len": config.engine.max_model_len,
    }
