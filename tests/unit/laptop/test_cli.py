"""``python -m speciarl.laptop``: what it refuses, and how it ends."""

from pathlib import Path

import pytest
import torch
from click.testing import Result
from typer.testing import CliRunner

from speciarl.laptop import checkpoint, cli
from speciarl.laptop.reference_grpo import REWARDS


def run(*words: object) -> Result:
    return CliRunner().invoke(cli.app, [str(word) for word in words])


def test_every_reward_has_a_name_on_the_command_line() -> None:
    assert {reward.value for reward in cli.Reward} == set(REWARDS)


@pytest.mark.parametrize("command", ["policy", "judge"])
def test_a_scale_that_leaves_no_steps_is_refused(command: str, tmp_path: Path) -> None:
    ended = run(command, "--out", tmp_path / "model", "--scale", 0)
    assert (ended.exit_code, ended.stderr) == (2, "speciarl: --scale must be positive, got 0.0\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["evaluate", "grpo"])
def test_a_folder_without_a_checkpoint_is_refused(command: str, tmp_path: Path) -> None:
    ended = run(command, "--model", tmp_path)
    assert ended.exit_code == 2
    assert ended.stderr == f"speciarl: {tmp_path} holds no checkpoint (config.json is missing)\n"


def test_a_missing_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    ended = run("evaluate", "--device", "cuda")
    assert ended.exit_code == 2
    assert ended.stderr == "speciarl: --device cuda: torch sees no CUDA device; use --device cpu\n"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (KeyboardInterrupt(), "interrupted; finished stages are kept and the same command goes on from there"),
        (FileNotFoundError("no checkpoint in models"), "no checkpoint in models"),
        (PermissionError(13, "Permission denied", "models"), "models: Permission denied"),
    ],
)
def test_trouble_ends_with_one_line(error: BaseException, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> Path:
        raise error

    monkeypatch.setattr(checkpoint, "shipped", fail)
    ended = run("evaluate")
    assert (ended.exit_code, ended.stderr) == (1, f"speciarl: {line}\n")


@pytest.mark.parametrize("words", [["policy"], ["grpo", "--reward", "unknown"], ["unknown"]])
def test_wrong_words_are_refused(words: list[str]) -> None:
    assert run(*words).exit_code == 2
