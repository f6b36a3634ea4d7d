"""Preflight checks, run in the driver before Ray starts, so that a wrong setting costs seconds and not minutes."""

import asyncio
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from data_prep.checks import validate
from speciarl import reward
from speciarl.config import SpeciaRLConfig, load
from speciarl.errors import ConfigError, DataError, SpeciaRLError
from speciarl.training.preflight.attention import attention_notice, check_attention
from speciarl.training.preflight.batch_sizes import check_batch_sizes
from speciarl.training.preflight.deadlines import check_deadlines
from speciarl.training.preflight.probabilities import check_probabilities
from speciarl.training.reward_info import sample_id
from speciarl.utils.cli_errors import refuse, say
from speciarl.verifier_server import VerifierConfig, build
from speciarl.verifier_server.pool.ray_pool import refuse_clashing_labels
from speciarl.verifier_server.verifier import Verifier

MERGER = "model.visual.merger.mlp.0"
"""A linear layer of Qwen2.5-VL outside of all transformer layers; only the output layer is another one."""


def check_run(config: DictConfig) -> SpeciaRLConfig:
    """The validated settings of a run, after all checks that the driver can make: keys, files, sizes, verifier.

    Raises a SpeciaRLError with one line for the first problem found.
    """
    settings = load(config)
    try:
        group_reward = reward.load(settings.reward.name, settings.reward.params)
    except ValueError as error:
        raise ConfigError(f"speciarl.reward.{error}") from error
    check_support(config, settings)
    check_model(str(config.actor_rollout_ref.model.path), "actor_rollout_ref.model.path")
    check_mode(config)
    check_attention(config)
    check_deadlines(settings, str(config.trainer.v1.trainer_mode))
    check_batch_sizes(config)
    for key in ("train_files", "val_files"):
        files = config.data[key]
        for file in [files] if isinstance(files, str) else list(files):
            check_parquet(Path(file), f"data.{key}", str(config.data.image_key), settings.data_hint)
            if key == "train_files" and settings.reward.noise.probability:
                check_identities(Path(file), f"data.{key}")
    check_probabilities(settings, group_reward, None)
    asyncio.run(check_verifier(settings.verifier, partial(check_probabilities, settings, group_reward)))
    return settings


def check_support(config: DictConfig, settings: SpeciaRLConfig) -> None:
    """Raise ConfigError for a dynamic reward with more `support` than a group has rollouts.

    It would silently become another reward: 1 for whatever is not wrong.
    """
    size = int(config.actor_rollout_ref.rollout.n)
    if settings.reward.name == "dynamic" and int(settings.reward.params.get("support", 1)) > size:
        raise ConfigError(
            f"speciarl.reward.params.support={settings.reward.params['support']}: a group has {size} rollouts "
            "(actor_rollout_ref.rollout.n); ask for fewer, 1 is the paper's rule"
        )


def check_model(path: str, key: str) -> None:
    """Raise ConfigError for a local path (absolute, or relative with a dot) without a model in it."""
    local = Path(path).expanduser()
    looks_local = path.startswith(("/", "./", "../", "~"))
    if looks_local and not (local / "config.json").is_file():
        raise ConfigError(
            f"{key}={path}: there is no config.json there; give a directory with a "
            "Hugging Face model, or a model name on the Hub"
        )


def check_mode(config: DictConfig) -> None:
    """Raise ConfigError for options that the trainer's mode cannot serve.

    Late rewards need a mode in which nothing reads rewards before advantages. Rollout servers apart from the trainer
    (separate_async) need weights in which all that was trained is contained.
    """
    mode = str(config.trainer.v1.trainer_mode)
    if load(config).training.late_verdicts:
        if mode != "speciarl":
            raise ConfigError(
                f"speciarl.training.late_verdicts=True: trainer.v1.trainer_mode={mode} does not fetch late rewards; "
                "use recipe/mode=sync_overlap, or leave late_verdicts out"
            )
        if config.skip.rollout_tq.enable:
            raise ConfigError(
                "speciarl.training.late_verdicts=True: rollouts that are loaded (skip.rollout_tq.enable=True) have no "
                "worker that knows their rewards; use recipe/mode=sync"
            )
        if config.algorithm.filter_groups.enable:
            raise ConfigError(
                "speciarl.training.late_verdicts=True: algorithm.filter_groups chooses groups by their rewards before "
                "the trainer goes on; use recipe/mode=sync, or an algorithm without filtering (recipe/algorithm=dapo)"
            )
    if not mode.endswith("separate_async"):
        return
    model = config.actor_rollout_ref.model
    trains_adapter = model.lora_rank > 0 or model.lora.rank > 0 or model.lora_adapter_path is not None
    if trains_adapter and not model.lora.merge:
        raise ConfigError(
            "actor_rollout_ref.model.lora.merge=False: in separate_async mode veRL sends the rollout servers the base "
            "weights only, so the adapter would not reach them (the run hangs at its first weight update); set "
            "actor_rollout_ref.model.lora.merge=True, or train without LoRA (actor_rollout_ref.model.lora_rank=0)"
        )
    if trains_adapter and config.actor_rollout_ref.actor.strategy == "fsdp2" and not _excludes(model, MERGER):
        raise ConfigError(
            "actor_rollout_ref.model.exclude_modules: in separate_async mode adapters are merged into the weights that "
            "rollout servers get, and with actor.strategy=fsdp2 veRL merges those inside transformer layers only; "
            "leave the vision tower out with actor_rollout_ref.model.exclude_modules='.*visual.*'"
        )


def _excludes(model: DictConfig, module: str) -> bool:
    """Whether a module gets no adapter, by PEFT's rules: a string is a pattern, a list holds ends of names."""

    def matches(names: Any) -> bool:
        if isinstance(names, str):
            return re.fullmatch(names, module) is not None
        return any(module == name or module.endswith(f".{name}") for name in names)

    targeted = model.target_modules == "all-linear" or matches(model.target_modules)
    return not targeted or (model.exclude_modules is not None and matches(model.exclude_modules))


async def check_verifier(config: VerifierConfig, check: Callable[[Verifier], None] = lambda _: None) -> None:
    """Connect to a judge that runs already, and `check` it; of one that the run will start, check its files.

    Raises VerifierStartError or ConfigError.
    """
    if config.pool is None:
        verifier = build(config)
        try:
            await verifier.start()
            check(verifier)
        finally:
            await verifier.aclose()
        return
    check_model(str(config.model), "speciarl.verifier.model")
    refuse_clashing_labels(config)


def check_parquet(path: Path, key: str, image_key: str, hint: str) -> None:
    """Raise DataError for a file that ``python -m data_prep validate`` refuses: all text and a sample of the images."""
    for fault in validate.faults(path, image_key):
        place = f"{path} {fault}" if fault.row is None else f"{path}, {fault}"
        more = f" (`python -m data_prep validate {path}` lists all faults)" if path.is_file() else ""
        raise DataError(f"{key}: {place}{more}; {hint}")


def check_identities(path: Path, key: str) -> None:
    """Raise DataError for a row without an id, from which verdict noise is drawn."""
    for row, extra_info in enumerate(pq.read_table(path, columns=["extra_info"])["extra_info"].to_pylist()):
        if not sample_id(extra_info or {}):
            raise DataError(
                f"{key}: {path}, row {row}: extra_info has neither sample_id nor index, by which verdict noise "
                "(speciarl.reward.noise.probability) tells images; build the file anew, or leave the noise out"
            )


class Preflight(Callback):
    """Hydra callback of every recipe: checks before the run, and an error of ours as one last line after it.

    Hydra turns exceptions of callbacks into warnings, so a failing check leaves through SystemExit.
    """

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Check the run; for a problem, print one line and exit with status 2."""
        try:
            check_run(config)
        except SpeciaRLError as error:
            refuse(error)
        notice = attention_notice()
        if notice:
            say(notice)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Print one line, as the last, for a run that ended with an error of ours in a Ray actor; exit with status 2.

        A job of a sweep shares this process with the next one: it shuts Ray down and does not exit. Hydra raises the
        sweep's first error when all jobs are done.
        """
        sweeps = config.hydra.mode is RunMode.MULTIRUN
        if sweeps:
            _leave_ray()
        if job_return.status is not JobStatus.FAILED:
            return
        # The private field: the property raises the error that it holds.
        error = own_error(job_return._return_value)
        if error is not None and sweeps:
            say(error)
        elif error is not None:
            refuse(error)


def own_error(error: Any) -> SpeciaRLError | None:
    """The SpeciaRLError that an exception is, wraps or was raised from; None for others."""
    while error is not None:
        # Ray's wrapper is an instance of the class of the error in it, but its message is a whole traceback.
        inner = getattr(error, "cause", None)
        if inner is None and isinstance(error, SpeciaRLError):
            return error
        error = inner or error.__cause__
    return None


def _leave_ray() -> None:
    import ray

    if ray.is_initialized():
        ray.shutdown()
