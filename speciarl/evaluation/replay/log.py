"""Log: whatever holds verdicts of a run, told by its files and read into rollouts."""

from __future__ import annotations

from pathlib import Path

from speciarl.errors import DataError
from speciarl.evaluation.replay import dump, evaluated, service_log
from speciarl.evaluation.replay.rollouts import Rollouts

KINDS = (
    "a folder that trainer.rollout_data_dir or trainer.validation_data_dir named, the folder of a run in a service's "
    "verdict_log.directory, or the `out` of an evaluation"
)


def read(path: Path, judge: str | None = None) -> tuple[Rollouts, bool]:
    """The rollouts of a log, and whether their verdicts are by the judge asked for; any judge where None.

    Raises DataError in one line that names the file and the remedy.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist; give {KINDS}")
    if steps := dump.files_of(path):
        return dump.read(steps), judge is None
    if path.is_dir() and (parts := service_log.files_of(path)):
        return service_log.read(parts, judge)
    if (path.is_dir() or path.suffix == ".parquet") and (found := evaluated.files_of(path, judge)):
        return evaluated.read(found, judge)
    raise DataError(f"{path} holds no verdicts; give {KINDS}")
