"""Evaluation configuration: the matrix of models, data sets, prompts and judges, and what is computed of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from speciarl.errors import ConfigError
from speciarl.evaluation.outcome import SCORED
from speciarl.utils import wrong_keys

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""What models, data sets and judges may be called, since folders are named after them."""


AS_BUILT = "as_built"
"""Stands for the prompt that is in the data file."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class SamplingConfig(_Section):
    """How answers are sampled. What is None is taken from the model's generation_config.json, else vLLM's default."""

    n: int = Field(default=1, ge=1, le=65_536)
    """Answers to each question. Raising it makes only what is missing."""
    temperature: float | None = Field(default=0.0, ge=0)
    """0 for the likeliest token (greedy), with which `n` must be 1."""
    top_p: float | None = Field(default=1.0, gt=0, le=1)
    top_k: int | None = Field(default=0, ge=0)
    """0 for no limit."""
    min_p: float | None = Field(default=0.0, ge=0, le=1)
    repetition_penalty: float | None = Field(default=1.0, gt=0)
    """1 for none, as in training's validation. Qwen2.5-VL's generation_config.json says 1.05."""
    presence_penalty: float | None = 0.0
    frequency_penalty: float | None = 0.0
    max_tokens: int = Field(default=2048, ge=1)
    """Longest response in tokens."""
    seed: int = Field(default=0, ge=0)
    """Draws another set of answers."""

    @model_validator(mode="after")
    def _greedy_once(self) -> Self:
        if self.temperature == 0 and self.n > 1:
            raise ValueError(f"`n` is {self.n} at temperature 0, which repeats one answer; raise it to .6, say")
        return self


class ModelConfig(_Section):
    """A model: weights, and what changes them; or a server that answers for it."""

    path: str | None = None
    """Model directory, or a name on the Hub."""
    revision: str | None = None
    """Revision on the Hub."""
    adapter: str | None = None
    """LoRA adapter over `path`: a directory as PEFT writes it, or a name on the Hub."""
    checkpoint: str | None = None
    """Checkpoint of veRL instead: ``…/global_step_N``, or the run's folder for the newest. It is converted on the way:
    whole weights to a model, an adapter to one over `path`, or over the model that the checkpoint names."""
    lora_alpha: float | None = Field(default=None, gt=0)
    """LoRA alpha of a `checkpoint` that does not record it: ``actor_rollout_ref.model.lora_alpha`` of its training."""
    merge: bool = False
    """Add the adapter to the weights before the first answer, because serving an adapter costs throughput. The answers
    may differ in rounding, so this is part of their key."""
    endpoint: str | None = None
    """Base URL of an OpenAI-compatible server that answers instead, e.g. ``http://localhost:8000/v1``; `path` is then
    the model's name there."""
    api_key_file: str | None = None
    """File that holds the endpoint's key and nothing else."""
    sampling: SamplingConfig | None = None
    """How this one answers; what is left out is as in the evaluation's `sampling`, but for `n`. Two models that differ
    in nothing else, greedy and best of 64 say, are loaded once if they follow each other."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not self.path and not self.checkpoint:
            raise ValueError("give `path` (a directory or a name on the Hub) or `checkpoint` (one of veRL)")
        if self.adapter and self.checkpoint:
            raise ValueError("`adapter` and `checkpoint`: give one of them")
        if self.lora_alpha and not self.checkpoint:
            raise ValueError("`lora_alpha` is of a `checkpoint`; an `adapter` has its own")
        if self.endpoint and (self.adapter or self.checkpoint or self.merge):
            raise ValueError("an `endpoint` serves what it serves: leave adapter, checkpoint and merge out")
        return self


class DatasetConfig(_Section):
    """A test set: a file of `data_prep`, or a part of it."""

    file: str
    """Parquet file in veRL's format."""
    data_source: tuple[str, ...] = ()
    """Rows of these sources only; all where empty."""
    group: str = ""
    """Group over which results are averaged, e.g. ``fine-grained``; none where empty."""
    max_samples: int | None = Field(default=None, ge=1)
    """Random part of so many rows (by a hash of `sample_id`, so that a smaller one lies within a larger one); all where
    None."""


class EngineConfig(_Section):
    """vLLM in this process. Only what changes answers is part of their key: `dtype`, `quantization` and pixels."""

    dtype: str = "auto"
    quantization: str | None = None
    min_pixels: int | None = Field(default=None, ge=1)
    """Images below are scaled up by the model's processor; the processor's own limit where None."""
    max_pixels: int | None = Field(default=None, ge=1)
    """Images above are scaled down by it; the processor's own limit where None."""
    max_model_len: int | None = Field(default=None, ge=1)
    """Longest prompt and response together; a longer prompt is a failure row, never dropped."""
    tensor_parallel_size: int = Field(default=1, ge=1)
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    window: int = Field(default=512, ge=1)
    """Most answers under way at once: bounds memory, and what `kill -9` can lose."""
    request_deadline_s: float = Field(default=1800, gt=0)
    """Seconds one answer may take; then it is a failure row."""
    args: dict[str, Any] = Field(default_factory=dict)
    """Further engine arguments of vLLM, e.g. ``{enforce_eager: true}``. Part of the key of answers."""


class JudgeConfig(_Section):
    """A judge, as training has it."""

    use: str
    """An option of recipe/verifier, or a .yaml file with one judge's keys."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Keys of the judge to change, e.g. ``{model: NAME}``."""


class BootstrapConfig(_Section):
    """Confidence intervals, by drawing classes with replacement."""

    draws: int = Field(default=2000, ge=100)
    seed: int = Field(default=0, ge=0)
    level: float = Field(default=0.95, gt=0.5, lt=1)


class MetricsConfig(_Section):
    """Definitions of the metrics; printed in every report."""

    weights: dict[str, float] = Field(
        default_factory=lambda: {"generic": 0.25, "less_specific": 0.5, "specific": 1.0, "more_specific": 1.0}
    )
    """Specificity of a correct answer, by category."""
    abstain_is_wrong: bool = False
    """Whether abstaining counts as wrong in correctness. Its rate is always shown."""
    scores: dict[str, float] = Field(
        default_factory=lambda: {
            "more_specific": 1.0, "specific": 1.0, "less_specific": -0.6, "generic": 0.2, "abstain": 0.0, "wrong": -1.0,
            "unparsable": -1.0, "too_long": -0.5,
        }
    )  # fmt: skip
    """Points of each outcome in the average score of the paper's release."""
    too_long_chars: int = Field(default=512, ge=1)
    """Longest normalised answer that is taken for a name; a longer one is a class of its own, counted as wrong."""
    bootstrap: BootstrapConfig = BootstrapConfig()
    similarity_model: str | None = None
    """Sentence model for semantic similarity: a directory, or a name on the Hub such as
    ``sentence-transformers/all-MiniLM-L6-v2``. None computes none."""
    concept_model: str | None = None
    """Pipeline of spaCy that finds noun chunks for concept similarity, such as ``en_core_web_sm``; needs
    `similarity_model` and spaCy installed. None computes none."""

    @field_validator("weights")
    @classmethod
    def _within_bounds(cls, weights: dict[str, float]) -> dict[str, float]:
        graded = {"generic", "less_specific", "specific", "more_specific"}
        if set(weights) != graded:
            raise ValueError(f"give a weight to each of {', '.join(sorted(graded))}, and to nothing else")
        if not all(0 <= weight <= 1 for weight in weights.values()):
            raise ValueError("weights must be in [0, 1]")
        return weights

    @field_validator("scores")
    @classmethod
    def _of_each_outcome(cls, scores: dict[str, float]) -> dict[str, float]:
        outcomes = {outcome.key for outcome in SCORED}
        if set(scores) != outcomes:
            raise ValueError(f"give points to each of {', '.join(sorted(outcomes))}, and to nothing else")
        return scores


class EvaluationConfig(_Section):
    """An evaluation: all models on all data sets with all prompts, each by all judges."""

    name: str = "evaluation"
    """Title of the report."""
    out: Path = Path("outputs/evaluation")
    """Folder of all files. The same command goes on where it was stopped."""
    answers: Path | None = None
    """Folder of the answers, which several evaluations may share; ``OUT/answers`` where None."""
    models: dict[str, ModelConfig]
    datasets: dict[str, DatasetConfig]
    prompts: tuple[str, ...] = (AS_BUILT,)
    """Prompts: ``as_built`` for the one in the data file, a name of `data_prep/prompts`, or the path of a .txt file."""
    judges: dict[str, JudgeConfig]
    sampling: SamplingConfig = SamplingConfig()
    engine: EngineConfig = EngineConfig()
    metrics: MetricsConfig = MetricsConfig()
    max_unscored: float = Field(default=0.01, ge=0, le=1)
    """Share of a cell's answers that may be unscored before the exit status is 1; the report is written in any case."""
    max_failed: float = Field(default=0.01, ge=0, le=1)
    """Share of a cell's questions that may fail before the exit status is 1."""
    log_to: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Where results go besides files."""

    @model_validator(mode="before")
    @classmethod
    def _inherit_sampling(cls, plain: Any) -> Any:
        """What a model's own sampling leaves out is the evaluation's, but for `n`."""
        if not isinstance(plain, Mapping) or not isinstance(plain.get("models"), Mapping):
            return plain
        common = plain.get("sampling")
        if not isinstance(common, Mapping):
            return plain
        inherited = {name: value for name, value in common.items() if name != "n"}
        models = {
            name: {**model, "sampling": {**inherited, **model["sampling"]}}
            if isinstance(model, Mapping) and isinstance(model.get("sampling"), Mapping)
            else model
            for name, model in plain["models"].items()
        }
        return {**plain, "models": models}

    @field_validator("models", "datasets", "judges")
    @classmethod
    def _names(cls, mapping: dict[str, Any]) -> dict[str, Any]:
        if not mapping:
            raise ValueError("give at least one")
        for name in mapping:
            if not NAME.fullmatch(name):
                raise ValueError(f"{name!r} cannot be a name: use letters, numbers, dots, dashes and underscores")
        return mapping

    @field_validator("prompts")
    @classmethod
    def _some_prompt(cls, prompts: tuple[str, ...]) -> tuple[str, ...]:
        if not prompts:
            raise ValueError("give at least one, e.g. as_built")
        names = [prompt_name(prompt) for prompt in prompts]
        for name in names:
            if not NAME.fullmatch(name):
                raise ValueError(f"{name!r} cannot be a name: use letters, numbers, dots, dashes and underscores")
        if len(set(names)) < len(names):
            raise ValueError("two prompts have the same name")
        return prompts

    def sampling_of(self, model: str) -> SamplingConfig:
        """How a model answers."""
        return self.models[model].sampling or self.sampling

    @property
    def answers_folder(self) -> Path:
        """Where answers are kept."""
        return self.answers or self.out / "answers"


def prompt_name(prompt: str) -> str:
    """Name of a prompt in folders and reports: of a file, its stem."""
    return Path(prompt).stem if "/" in prompt or prompt.endswith(".txt") else prompt


def parse(plain: Mapping[str, Any]) -> EvaluationConfig:
    """Validate plain settings; raises ConfigError naming every wrong key in one line."""
    try:
        return EvaluationConfig.model_validate(plain)
    except ValidationError as error:
        problems = wrong_keys.describe(error, EvaluationConfig)
        raise ConfigError(f"{problems}. The fields are described in speciarl/evaluation/config.py") from error
