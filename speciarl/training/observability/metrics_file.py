"""Metrics file: rotated at the start of a run, since veRL's logger ``file`` truncates what an earlier attempt wrote."""

import itertools
import os
from pathlib import Path

from omegaconf import DictConfig


def location(trainer: DictConfig) -> Path:
    """Path in veRL 0.9.1: from its two environment variables, else ``project_name/experiment_name.jsonl``."""
    given = os.environ.get("VERL_FILE_LOGGER_PATH")
    if given is not None:
        return Path(given)
    root = Path(os.environ.get("VERL_FILE_LOGGER_ROOT", ".")).expanduser()
    return root.joinpath(trainer.project_name, f"{trainer.experiment_name}.jsonl")


def rotate(trainer: DictConfig) -> Path | None:
    """Rename the file of an earlier attempt to ``NAME.jsonl.0``, ``NAME.jsonl.1`` and so on; returns its new name.

    Returns None where the logger is not in use or the attempt left nothing.
    """
    loggers = [trainer.logger] if isinstance(trainer.logger, str) else trainer.logger
    path = location(trainer)
    if "file" not in loggers or not path.is_file() or not path.stat().st_size:
        return None
    names = (path.with_name(f"{path.name}.{number}") for number in itertools.count())
    kept = next(name for name in names if not name.exists())
    path.rename(kept)
    return kept
