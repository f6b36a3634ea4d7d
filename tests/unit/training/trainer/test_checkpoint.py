"""What a run resumes from after it was killed while it saved."""

import shutil
from pathlib import Path

import pytest
import torch

from speciarl.training.trainer.checkpoint import is_complete, newest_complete, repair_tracker, tracked_step


def save(root: Path, step: int, world: int = 1) -> Path:
    """A checkpoint as veRL's FSDP workers write it."""
    folder = root / f"global_step_{step}"
    (folder / "actor").mkdir(parents=True)
    for rank in range(world):
        for kind in ("model", "optim", "extra_state"):
            torch.save({"x": torch.zeros(8)}, folder / "actor" / f"{kind}_world_size_{world}_rank_{rank}.pt")
    torch.save({"position": step}, folder / "data.pt")
    return folder


def track(root: Path, text: str) -> None:
    (root / "latest_checkpointed_iteration.txt").write_text(text)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def test_a_tracker_that_names_a_complete_checkpoint_is_left_alone(tmp_path: Path) -> None:
    save(tmp_path, 5)
    save(tmp_path, 10)
    track(tmp_path, "5")  # somebody set it back
    assert repair_tracker(tmp_path) is None
    assert tracked_step(tmp_path) == 5


@pytest.mark.parametrize("text", ["", "10", "rubbish"])
def test_killed_while_saving_the_second_checkpoint(tmp_path: Path, text: str) -> None:
    save(tmp_path, 5, world=2)
    shutil.rmtree(save(tmp_path, 10, world=2) / "actor")
    track(tmp_path, text)
    said = repair_tracker(tmp_path)
    assert said is not None
    assert "resumes from step 5" in said
    assert tracked_step(tmp_path) == 5
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_killed_between_the_last_file_and_the_tracker(tmp_path: Path) -> None:
    save(tmp_path, 5)
    assert repair_tracker(tmp_path) is not None
    assert tracked_step(tmp_path) == 5


@pytest.mark.parametrize(
    "broken", ["data.pt", "actor/model_world_size_2_rank_1.pt", "actor/optim_world_size_2_rank_0.pt"]
)
def test_a_file_that_is_cut_short_makes_a_checkpoint_incomplete(tmp_path: Path, broken: str) -> None:
    folder = save(tmp_path, 5, world=2)
    assert is_complete(folder)
    cut(folder / broken)
    assert not is_complete(folder)
    assert newest_complete(tmp_path) is None


def test_a_rank_that_is_missing_makes_a_checkpoint_incomplete(tmp_path: Path) -> None:
    folder = save(tmp_path, 5, world=2)
    (folder / "actor" / "model_world_size_2_rank_1.pt").unlink()
    assert not is_complete(folder)


def test_without_any_checkpoint_nothing_is_touched(tmp_path: Path) -> None:
    assert repair_tracker(tmp_path / "missing") is None
    track(tmp_path, "5")
    assert repair_tracker(tmp_path) is None
    assert tracked_step(tmp_path) == 5
