"""What a run that has to stop may save. The trainers here are bare: nothing of veRL's is started."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf
from verl.trainer.ppo.v1.trainer_separate_async import PPOTrainerSeparateAsync

from speciarl.config import RewardConfig, TrainingConfig
from speciarl.errors import FailureBudgetExceeded, VerifierOutage
from speciarl.training.observability.rollout_stats import RolloutStats
from speciarl.training.trainer.checkpoint import StepProgress
from speciarl.training.trainer.trainer import SpeciaRLSeparateAsyncTrainer

NOW = 7


class BareTrainer(SpeciaRLSeparateAsyncTrainer):
    """At step 7, with a checkpoint that is noted instead of written."""

    def __init__(self, folder: Path, progress: StepProgress) -> None:
        self.config = OmegaConf.create({"trainer": {"default_local_dir": str(folder)}})
        self.trainer_mode = "separate_async"
        self.global_steps = NOW
        self._progress = progress
        self._stop_error = None
        self.saved: list[int] = []

    def _save_checkpoint(self) -> None:
        self.saved.append(self.global_steps)


def stopped_after(updates: int, folder: Path, ended: bool = False) -> tuple[list[int], str]:
    """What is saved, and what is said."""
    progress = StepProgress()
    progress.begin()
    for _ in range(updates):
        progress.record_update()
    if ended:
        progress.end()
    trainer: Any = BareTrainer(folder, progress)
    said = str(trainer._give_up(VerifierOutage("no verdict")))
    return trainer.saved, said


def test_between_two_steps_the_last_is_saved(tmp_path: Path) -> None:
    saved, said = stopped_after(2, tmp_path, ended=True)
    assert saved == [NOW]
    assert said.startswith("after step 7, step 7 is saved: no verdict")


def test_before_the_first_update_the_step_before_is_saved(tmp_path: Path) -> None:
    saved, said = stopped_after(0, tmp_path)
    assert saved == [NOW - 1]
    assert said.startswith("step 7 was given up, step 6 is saved: no verdict")


def test_a_step_that_is_refused_is_logged_before_the_run_stops_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PPOTrainerSeparateAsync, "on_step_end", lambda self: None)
    progress = StepProgress()
    progress.begin()
    progress.record_update()
    trainer: Any = BareTrainer(tmp_path, progress)
    trainer._settings = SimpleNamespace(reward=RewardConfig(), training=TrainingConfig())
    trainer._drain_stats = lambda: RolloutStats(rollouts=10, unscorable=Counter(timeout=9))
    trainer._raise_stop_error()
    trainer.on_step_end()
    trainer.global_steps += 1  # what veRL does when it has logged a step
    with pytest.raises(FailureBudgetExceeded, match=r"90%.*timeout 9") as refused:
        trainer.on_step_begin()
    assert str(trainer._give_up(refused.value)).startswith("after step 7, step 7 is saved: 90%")
    assert trainer.saved == [NOW]


def test_an_outage_in_validation_ends_a_run_once_its_step_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: Any) -> None:
        raise AssertionError("nothing to average")

    monkeypatch.setattr(PPOTrainerSeparateAsync, "_validate", fails)
    trainer: Any = BareTrainer(tmp_path, StepProgress())
    trainer._drain_stats = lambda validate: RolloutStats(rollouts=3, unscorable=Counter(timeout=3))
    trainer._training = False
    with pytest.raises(VerifierOutage, match="not one rollout of the validation"):
        trainer._validate()
    trainer._training = True
    assert trainer._validate() == {}
    trainer.global_steps += 1
    with pytest.raises(VerifierOutage, match="not one rollout of the validation"):
        trainer.on_step_begin()
    assert trainer.global_steps == NOW


@pytest.mark.parametrize("updates", [1, 3])
def test_weights_between_two_steps_are_not_saved_as_either(updates: int, tmp_path: Path) -> None:
    saved, said = stopped_after(updates, tmp_path)
    assert saved == []
    assert "the last checkpoint (trainer.save_freq) stands" in said


def test_a_step_that_is_saved_already_stays_so_whatever_came_after(tmp_path: Path) -> None:
    (tmp_path / "latest_checkpointed_iteration.txt").write_text(str(NOW - 1))
    saved, said = stopped_after(1, tmp_path)
    assert saved == []
    assert "step 6 is saved" in said


def test_the_next_step_begins_anew() -> None:
    progress = StepProgress()
    progress.begin()
    progress.record_update()
    assert not progress.whole
    progress.end()
    assert progress.whole
    progress.begin()
    assert progress.whole
    assert progress.finished(NOW) == NOW - 1
