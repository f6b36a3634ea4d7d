"""When the trainer writes a page of sampled rollouts; workers and logger are fakes."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from wandb import Html

from speciarl.config import TrainingConfig
from speciarl.training.observability.rollout_samples import SampledGroup
from speciarl.training.trainer.trainer import SpeciaRLTrainer


class FakeLogger:
    def __init__(self, *backends: str) -> None:
        self.logger = dict.fromkeys(backends)
        self.logged: list[tuple[dict[str, Any], int, list[str]]] = []

    def log(self, data: dict[str, Any], step: int, backend: list[str]) -> None:
        self.logged.append((data, step, backend))


def group(step: int, name: str) -> SampledGroup:
    return SampledGroup(step, name, "pets", "1", "specific", None, ())


@pytest.fixture
def trainer(tmp_path: Path) -> Any:
    one = object.__new__(SpeciaRLTrainer)
    training = TrainingConfig(samples_dir=str(tmp_path / "samples"), samples_per_step=2)
    one._settings = SimpleNamespace(training=training)
    one._shown, one.global_steps, one.logger = [], 10, FakeLogger("console")
    return one


def show(trainer: Any, *by_worker: list[SampledGroup]) -> list[str]:
    """The pages after one more step."""
    trainer._ask_workers = lambda method: list(by_worker)
    trainer._show_samples()
    return sorted(path.name for path in Path(trainer._settings.training.samples_dir).glob("*"))


def test_nothing_sampled_writes_nothing(trainer: Any) -> None:
    assert show(trainer, [], []) == []


def test_the_workers_groups_share_a_page_up_to_its_size(trainer: Any) -> None:
    assert show(trainer, [group(10, "lion")], [group(10, "tiger"), group(10, "puma")]) == ["step_0000010.html"]
    page = (Path(trainer._settings.training.samples_dir) / "step_0000010.html").read_text()
    assert ("lion" in page, "tiger" in page, "puma" in page) == (True, True, False)


def test_groups_that_end_after_their_step_join_its_page(trainer: Any) -> None:
    show(trainer, [group(10, "lion")])
    assert show(trainer, [group(10, "tiger")]) == ["step_0000010.html"]
    page = (Path(trainer._settings.training.samples_dir) / "step_0000010.html").read_text()
    assert "lion" in page
    assert "tiger" in page
    assert show(trainer, [group(20, "puma")]) == ["step_0000010.html", "step_0000020.html"]
    assert [one.ground_truth for one in trainer._shown] == ["puma"]


def test_wandb_gets_the_page_if_it_is_among_the_loggers(trainer: Any) -> None:
    show(trainer, [group(10, "lion")])
    assert trainer.logger.logged == []
    trainer.logger = FakeLogger("console", "wandb")
    show(trainer, [group(10, "tiger")])
    ((data, step, backends),) = trainer.logger.logged
    assert (step, backends) == (10, ["wandb"])
    assert isinstance(data["speciarl/samples"], Html)


def test_a_page_that_cannot_be_written_costs_a_warning(trainer: Any, caplog: pytest.LogCaptureFixture) -> None:
    Path(trainer._settings.training.samples_dir).write_text("in the way")
    show(trainer, [group(10, "lion")])
    assert "no page of sampled rollouts for step 10" in caplog.text
