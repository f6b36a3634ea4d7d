"""A run looks at everything that can be wrong before it starts, and puts no other settings beside old numbers."""

from pathlib import Path

import pytest
from rich.console import Console
from scripted_engine import row, save

from speciarl.errors import ConfigError, DataError, DataPrepError
from speciarl.evaluation import tables
from speciarl.evaluation.config import EvaluationConfig, parse
from speciarl.evaluation.matrix import SETTINGS, asked
from speciarl.evaluation.run import Stage, run


def configured(tmp_path: Path, **changed: object) -> EvaluationConfig:
    file = save(tmp_path / "test.parquet", [row(0)])
    return parse(
        {
            "out": tmp_path / "out",
            "models": {"m": {"path": "m", "endpoint": "http://localhost:1/v1"}},
            "datasets": {"d": {"file": str(file)}},
            "judges": {"j": {"use": "laptop"}},
            **changed,
        }
    )


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"datasets": {"d": {"file": "gone.parquet"}}}, DataError, r"datasets\.d\.file: gone\.parquet does not exist"),
        ({"prompts": ["nonsense"]}, DataPrepError, "there is no prompt 'nonsense'"),
        ({"judges": {"j": {"use": "nonsense"}}}, ConfigError, "there is no recipe/verifier=nonsense"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_done(
    tmp_path: Path, changed: dict[str, object], error: type[Exception], message: str
) -> None:
    config = configured(tmp_path, **changed)
    with pytest.raises(error, match=message):
        run(config, Console())
    assert not config.out.exists()


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"sampling": {"temperature": 1.0}}, r"sampling\.temperature"),
        ({"sampling": {"max_tokens": 9}}, r"sampling\.max_tokens"),
    ],
)
def test_a_later_stage_refuses_other_settings_than_the_answers_were_made_with(
    tmp_path: Path, changed: dict[str, object], field: str
) -> None:
    config = configured(tmp_path)
    facts = {"setup": "s", "prompt_override": None, "sampling": config.sampling.model_dump()}
    tables.write(asked(config)[0].predictions(config.out), tables.PREDICTIONS, [], facts)
    with pytest.raises(DataError, match=rf"was made with another {field}; run the stage `predict` again"):
        run(configured(tmp_path, **changed), Console(), Stage.METRICS)
    assert not (config.out / SETTINGS).exists()
