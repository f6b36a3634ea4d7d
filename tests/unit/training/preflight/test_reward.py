"""What the driver checks of a reward before Ray starts, and how an error ends a run and a sweep."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from composed_run import compose_run
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import RunMode

from speciarl.errors import ConfigError, DataError, VerifierOutage
from speciarl.reward import load
from speciarl.training.preflight.checks import Preflight, check_identities, check_run
from speciarl.verdict import Reason, Source, Unscorable, Verdict

EXAMPLES = Path(__file__).parents[4] / "examples"


def composed(*overrides: str) -> Any:
    return compose_run("+recipe=[speciarl,laptop]", *overrides, return_hydra_config=True)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["speciarl.reward.name=dynamite"], r"^speciarl\.reward\.name: no group reward 'dynamite'.*use dynamic, "),
        (
            ["recipe/reward=margin_aware", "speciarl.reward.params.confidence=2"],
            r"^speciarl\.reward\.params\.confidence: ",
        ),
        (["+speciarl.reward.params.speed=2"], r"^speciarl\.reward\.params\.speed: there is no such parameter"),
        (["+speciarl.reward.params.support=0"], r"^speciarl\.reward\.params\.support: .* or equal to 1 \(reward 'dyn"),
        (["+speciarl.reward.params.support=11"], r"^speciarl\.reward\.params\.support=11: a group has 10 rollouts"),
    ],
)
def test_a_wrong_reward_is_one_line(overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        check_run(composed(*overrides))
    assert "\n" not in str(caught.value)


def test_the_example_of_ones_own_reward(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES / "own_reward")
    from speciarl.category import Category

    group = [Verdict(category, None, Source.LIVE) for category in Category]
    earned = load("own_reward:rewards", {"abstaining": 0.2})([*group, Unscorable(Reason.TIMEOUT)])
    assert earned == [0, 0.2, 3 / 6, 4 / 6, 5 / 6, 1, None]
    with pytest.raises(ValueError, match=r"params\.abstaining: Input should be less than 1"):
        load("own_reward:rewards", {"abstaining": 1})


def test_the_example_sweep_gives_each_run_a_name_and_a_directory() -> None:
    search = f"hydra.searchpath=[file://{EXAMPLES / 'sweep'}]"
    config = composed(search, "+sweep=static_vs_dynamic", "recipe/algorithm=dapo", "recipe/reward=binary")
    assert config.hydra.mode is RunMode.MULTIRUN
    assert config.trainer.experiment_name == "dapo-binary"
    assert config.trainer.default_local_dir == "sweeps/dapo-binary"
    assert config.hydra.sweep.subdir == "dapo-binary"
    assert config.speciarl.verifier.store.path.startswith("sweeps/dapo-binary/")
    assert dict(config.hydra.sweeper.params) == {
        "recipe/algorithm": "grpo,dr_grpo,dapo,dapo_filtered",
        "recipe/reward": "binary,dynamic",
    }


@pytest.mark.parametrize(
    ("row", "fine"), [({"index": 3}, True), ({"sample_id": "a"}, True), ({"split": "train"}, False)]
)
def test_images_must_be_told_apart_by_an_id(tmp_path: Path, row: dict[str, object], fine: bool) -> None:
    path = tmp_path / "train.parquet"
    pq.write_table(pa.table({"extra_info": [row, row]}), path)
    if fine:
        check_identities(path, "data.train_files")
        return
    with pytest.raises(DataError, match=r"data\.train_files: .*row 0: extra_info has neither sample_id nor index"):
        check_identities(path, "data.train_files")


def failed(error: Exception) -> JobReturn:
    wrapped = RuntimeError("as Ray does")
    wrapped.__cause__ = error
    done = JobReturn()
    done.status, done._return_value = JobStatus.FAILED, wrapped
    return done


def test_our_errors_end_a_run_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    config = SimpleNamespace(hydra=SimpleNamespace(mode=RunMode.RUN))
    with pytest.raises(SystemExit) as caught:
        Preflight().on_job_end(config, failed(VerifierOutage("no verdict")))  # type: ignore[arg-type]
    assert caught.value.code == 2
    assert capsys.readouterr().err == "speciarl: no verdict\n"


def test_a_failed_job_of_a_sweep_leaves_the_others_their_turn(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    left: list[bool] = []
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "shutdown", lambda: left.append(True))
    config = SimpleNamespace(hydra=SimpleNamespace(mode=RunMode.MULTIRUN))
    Preflight().on_job_end(config, failed(VerifierOutage("no verdict")))  # type: ignore[arg-type]
    assert capsys.readouterr().err == "speciarl: no verdict\n"
    assert left == [True]
