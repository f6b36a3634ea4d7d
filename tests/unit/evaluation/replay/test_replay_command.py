"""The command: what it prints and writes, how it ends, and how rewards are spelled."""

import json
import sys
from pathlib import Path

import pytest
import typer
from replay_logs import members, write_dump
from typer.testing import CliRunner

from speciarl.errors import ConfigError
from speciarl.evaluation.replay import log, rewards
from speciarl.evaluation.replay.cli import command

app = typer.Typer()
app.command()(command)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_dump(tmp_path / "log", [[members("gsl."), members("wwwg")]], {"noise": {"probability": 0.5}})


def test_it_prints_and_writes_everything(folder: Path, tmp_path: Path) -> None:
    def written(name: str) -> tuple[str, str]:
        files = [tmp_path / f"{name}.json", tmp_path / f"{name}.md"]
        words = [str(folder), "--reward", "dynamic,graded_1", "--json", str(files[0]), "--markdown", str(files[1])]
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, done.output
        assert "7 of 7 compared rollouts are equal" in done.output
        return files[0].read_text(), files[1].read_text()

    first = written("first")
    assert first == written("second")
    content = json.loads(first[0])
    assert content["check"] == {"compared": 7, "equal": 7, "first_difference": None}
    assert set(content["rewards"]) == {"dynamic", "graded_1"}
    assert content["noise"] == "as logged"
    assert "| dynamic / graded_1 |" in first[1]
    assert "7 of 7 compared rollouts are equal" in first[1]


def test_a_difference_ends_it_with_status_1(folder: Path) -> None:
    file = folder / "1.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines[0]["group_reward"] = 0.125
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = CliRunner().invoke(app, [str(folder)])
    assert done.exit_code == 1
    assert "first difference" in done.output
    done = CliRunner().invoke(app, [str(folder), "--no-check"])
    assert done.exit_code == 0
    assert "not compared" in done.output


def test_noise_of_ones_own(folder: Path) -> None:
    done = CliRunner().invoke(app, [str(folder), "--noise", "0"])
    assert "noise probability 0, seed 42: it moved 0.0%" in done.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--reward", "nonsense"], "speciarl: reward nonsense: name: no group reward 'nonsense'"),
        (["--n", "9"], "--n 9: the groups of"),
        (["--judge-key", "model=x"], "--judge-key changes a judge"),
        (["--judge", "nobody"], "there is no recipe/verifier=nobody"),
    ],
)
def test_an_unfit_setting_ends_it_with_status_2_and_one_line(folder: Path, words: list[str], said: str) -> None:
    done = CliRunner().invoke(app, [str(folder), *words])
    assert done.exit_code == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_rewards_are_spelled_with_their_parameters() -> None:
    found = rewards.parse("dynamic, dynamic(support=2),speciarl.reward.static:binary")
    assert [one.spelled for one in found] == ["dynamic", "dynamic(support=2)", "speciarl.reward.static:binary"]
    assert [one.labels_only for one in found] == [True, True, False]
    assert found[1].function(members("gsl")) == [0.0, 1.0, 1.0]


@pytest.mark.parametrize(
    "text", ["", "dynamic,", ",dynamic", "dynamic(support=2", "dynamic(support=0)", "dynamic(2)", "dynamic,dynamic"]
)
def test_rewards_that_cannot_be_read_are_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        rewards.parse(text)
    assert "\n" not in str(caught.value)


def test_a_users_reward_that_fails_is_named_with_its_group(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "users_rewards.py").write_text("def short(members):\n    return [1.0]\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    rollouts, _ = log.read(folder)
    with pytest.raises(ConfigError, match=r"reward users_rewards:short fails on the group at .*1.jsonl, row 1 \(Value"):
        rewards.compute(rollouts, rollouts.outcome, *rewards.parse("users_rewards:short"))
