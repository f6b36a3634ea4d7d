"""Settings of evaluations: presets compose, a written file repeats one, and what is wrong is told in one line."""

from pathlib import Path

import pytest

from speciarl.errors import ConfigError
from speciarl.evaluation import compose
from speciarl.evaluation.matrix import asked, judged


@pytest.mark.parametrize("preset", ["laptop", "paper", "best_of_64"])
def test_a_preset_composes_and_its_file_repeats_it(preset: str, tmp_path: Path) -> None:
    config = compose.settings([f"preset={preset}"])
    file = tmp_path / "evaluation.yaml"
    file.write_text(compose.written(config))
    assert compose.settings([str(file)]) == config
    assert compose.settings([str(file), "sampling.max_tokens=9"]).sampling.max_tokens == 9


def test_the_defaults_of_the_file_are_those_of_the_fields() -> None:
    words = ["models.m.path=x", "datasets.d.file=f", "judges.j.use=laptop"]
    config = compose.settings(words)
    assert config == type(config)(models=config.models, datasets=config.datasets, judges=config.judges)


def test_the_matrix_has_every_cell_once() -> None:
    config = compose.settings(["preset=laptop", "prompts=[as_built,specific]", "judges.exact.use=taxonomy"])
    assert len(asked(config)) == len(set(asked(config))) == 4 * 4 * 2
    assert len(list(judged(config))) == 2 * 32
    assert [str(one) for one in asked(config)[:2]] == ["before / animals", "before / animals / specific"]


def test_a_models_own_sampling_inherits_what_it_leaves_out_but_n() -> None:
    words = ["preset=best_of_64", "sampling.max_tokens=99", "sampling.repetition_penalty=null"]
    config = compose.settings(words)
    own = config.sampling_of("best-of-64")
    assert (own.n, own.temperature, own.max_tokens, own.repetition_penalty) == (64, 0.6, 99, None)
    assert config.sampling_of("zero-shot").n == 1


def test_a_prompt_that_is_a_file_cannot_lead_out_of_the_folder() -> None:
    words = ["preset=laptop", "prompts=[/somewhere/p]"]
    [one, *_] = asked(compose.settings(words))
    assert one.predictions(Path("out")) == Path("out/predictions/before/animals/p.parquet")
    with pytest.raises(ConfigError, match="cannot be a name"):
        compose.settings(["preset=laptop", "prompts=[a/..]"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["preset=lap"], "preset: there is no 'lap'; did you mean laptop"),
        (["preset=laptop", "sampling.topp=1"], r"sampling\.topp: there is no such key; did you mean top_p"),
        (["preset=laptop", "models.x.pth=a"], r"models\.x\.pth: there is no such key; did you mean path"),
        (["preset=laptop", "sampling.n=4"], "`n` is 4 at temperature 0"),
        (["laptop"], "'laptop' is no setting; write KEY=VALUE"),
        (["gone.yaml"], r"gone\.yaml does not exist"),
        (["preset=none"], "models: give at least one"),
        (["preset=laptop", "models.a b.path=x"], "cannot be a name|signs of Hydra"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        compose.settings(words)
    assert "\n" not in str(caught.value)
