"""The metrics of an earlier attempt, which veRL's own file logger would overwrite."""

import json
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf
from verl.utils.tracking import FileLogger

from speciarl.training.observability.metrics_file import rotate


def trainer(logger: str | list[str]) -> DictConfig:
    return OmegaConf.create({"project_name": "runs", "experiment_name": "one", "logger": logger})


def attempt(step: int) -> None:
    log = FileLogger("runs", "one")
    log.log({"loss": 0.5}, step)
    log.finish()


def steps(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("VERL_FILE_LOGGER_PATH", raising=False)
    monkeypatch.setenv("VERL_FILE_LOGGER_ROOT", str(tmp_path))
    return tmp_path / "runs"


def test_every_attempt_keeps_its_steps(folder: Path) -> None:
    for step in (1, 20, 40):
        rotate(trainer(["console", "file"]))
        attempt(step)
    assert steps(folder / "one.jsonl.0") == [1]
    assert steps(folder / "one.jsonl.1") == [20]
    assert steps(folder / "one.jsonl") == [40]


def test_a_path_given_to_verl_is_the_one_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VERL_FILE_LOGGER_PATH", str(tmp_path / "given.jsonl"))
    attempt(1)
    assert rotate(trainer("file")) == tmp_path / "given.jsonl.0"
    assert steps(tmp_path / "given.jsonl.0") == [1]


def test_without_the_logger_or_without_content_nothing_is_touched(folder: Path) -> None:
    assert rotate(trainer("file")) is None
    attempt(1)
    assert rotate(trainer(["console", "tensorboard"])) is None
    (folder / "one.jsonl").write_bytes(b"")
    assert rotate(trainer("file")) is None
    assert [path.name for path in folder.iterdir()] == ["one.jsonl"]
