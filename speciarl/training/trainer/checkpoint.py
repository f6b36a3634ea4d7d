"""Checkpoints: which one a run resumes from, also when it was killed while it saved one.

veRL saves the workers' files, then the dataloader's state, and last a tracker file with the step. It overwrites the
tracker in place and, where only one checkpoint is kept, removes the old one before: a kill in between leaves a tracker
that is empty or that names a checkpoint which is gone.
"""

import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

from speciarl.utils.atomic_files import write_text

TRACKER = "latest_checkpointed_iteration.txt"
DATA_STATE = "data.pt"
_FOLDER = re.compile(r"global_step_(\d+)")
_SHARD = re.compile(r"model_world_size_(\d+)_rank_(\d+)\.pt")


def is_complete(folder: Path) -> bool:
    """Whether a checkpoint holds the dataloader's state and the model of every rank, no file of them truncated.

    A file that torch saved is a zip archive, whose directory comes last: a truncated one has none.
    """
    if not zipfile.is_zipfile(folder / DATA_STATE):
        return False
    actor = folder / "actor"
    shards = [match for path in _listing(actor) if (match := _SHARD.fullmatch(path.name))]
    if not shards or {int(shard[2]) for shard in shards} != set(range(int(shards[0][1]))):
        return False
    return all(zipfile.is_zipfile(path) for path in _listing(actor) if path.suffix == ".pt")


def newest_complete(root: Path) -> int | None:
    """Step of the newest complete checkpoint under `root`; None when there is none."""
    steps = [int(match[1]) for path in _listing(root) if (match := _FOLDER.fullmatch(path.name))]
    return next((step for step in sorted(steps, reverse=True) if is_complete(root / f"global_step_{step}")), None)


def tracked_step(root: Path) -> int | None:
    """Step in the tracker file; None where it is missing or holds no number."""
    try:
        return int((root / TRACKER).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def repair_tracker(root: Path) -> str | None:
    """Point the tracker at the newest complete checkpoint, if the one it names is not; returns a line for the log.

    None, with nothing changed, where there is nothing to repair.

    A tracker that names a complete checkpoint is left alone, whatever is newer: a user may have set it back. Without
    any complete checkpoint nothing is changed, so that veRL says what it misses.
    """
    step = tracked_step(root)
    if step is not None and is_complete(root / f"global_step_{step}"):
        return None
    found = newest_complete(root)
    if found is None:
        return None
    # Replaced whole, not written in place as veRL does: this may be killed as well.
    write_text(root / TRACKER, str(found))
    said = "no step" if step is None else f"step {step}, whose checkpoint is incomplete"
    return f"{root / TRACKER} named {said}; the run resumes from step {found}, the newest complete checkpoint"


def _listing(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


@dataclass(slots=True)
class StepProgress:
    """Progress of the current training step: whether it runs, and whether it has changed the weights yet.

    A step updates the policy once, or several times in ``separate_async`` (``parameter_sync_step``), which waits for
    rollouts before each. Between its first update and its end the weights belong to no finished step.
    """

    running: bool = False
    updates: int = 0
    """Updates of the current step that have begun."""

    def begin(self) -> None:
        """Record that a step begins."""
        self.running, self.updates = True, 0

    def record_update(self) -> None:
        """Record that an update of the policy begins."""
        self.updates += 1

    def end(self) -> None:
        """Record that the step has ended: its weights are on the rollout servers."""
        self.running = False

    def finished(self, step: int) -> int:
        """The last finished step, given veRL's ``global_steps``."""
        return step - self.running

    @property
    def whole(self) -> bool:
        """Whether the weights are those of the last finished step, so that they may be saved as its checkpoint."""
        return not (self.running and self.updates)
