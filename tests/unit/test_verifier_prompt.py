"""Judge prompts: what is shipped, what is sent, what is refused."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciarl.answer import normalise
from speciarl.category import LABELS, Category
from speciarl.errors import ConfigError
from speciarl.verdict import Pair
from speciarl.verifier_server.prompt import load_prompt, shipped_prompts

SHIPPED = shipped_prompts()


def test_both_prompts_are_shipped() -> None:
    assert SHIPPED == ["base", "compact"]


@pytest.mark.parametrize("name", SHIPPED)
def test_golden_pairs_cover_the_ladder(name: str) -> None:
    prompt = load_prompt(name)
    covered = {category for golden in prompt.golden for category in golden.expected}
    assert covered >= {Category.WRONG, Category.ABSTAIN, Category.GENERIC, Category.LESS_SPECIFIC, Category.SPECIFIC}


def test_the_rubric_names_every_label() -> None:
    assert all(label in load_prompt("base").system for label in LABELS)


def test_compact_is_exactly_what_small_judges_are_trained_on() -> None:
    assert load_prompt("compact").messages(Pair("Dog Face!", "CAT  face")) == [
        {"role": "system", "content": "Grade the prediction against the ground truth."},
        {"role": "user", "content": '{"ground_truth": "dog face", "prediction": "cat face"}'},
    ]


@pytest.mark.parametrize("name", SHIPPED)
@given(truth=st.text(), prediction=st.text())
def test_the_pair_comes_last_as_data(name: str, truth: str, prediction: str) -> None:
    prompt = load_prompt(name)
    messages = prompt.messages(Pair(truth, prediction))
    other = prompt.messages(Pair("a", "b"))
    assert messages[:-1] == other[:-1]  # a server can cache everything before the pair
    content = messages[-1]["content"]
    assert content.startswith(prompt.user_prefix)
    data = json.loads(content[len(prompt.user_prefix) :])
    assert data == {"ground_truth": normalise(truth), "prediction": normalise(prediction)}


def test_the_hash_follows_the_text_and_nothing_else(tmp_path: Path) -> None:
    def written(name: str, text: str) -> str:
        path = tmp_path / name
        path.write_text(f"version: 1\n{text}")
        return load_prompt(str(path)).content_hash

    golden = "golden: [{ground_truth: a, prediction: a, expect: specific}]\n"
    one = written("one.yaml", "system: grade\n")
    assert one == written("two.yaml", f"system: grade\n{golden}")
    assert one != written("three.yaml", "system: Grade\n")
    assert one != written("four.yaml", 'system: grade\nuser_prefix: "Pair: "\n')
    assert one != load_prompt("compact").content_hash


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version: [", "no YAML"),
        ("- a", "no mapping"),
        ("version: 2\nsystem: s", "`version` must be 1"),
        ("version: 1", "`system`"),
        ("version: 1\nsystem: ''", "`system`"),
        ("version: 1\nsystem: s\nrubric: r", "'rubric'"),
        ("version: 1\nsystem: s\ngolden: 3", "must be a list"),
        ("version: 1\nsystem: s\ngolden: [{ground_truth: a}]", r"golden\[0\] needs exactly"),
        (
            "version: 1\nsystem: s\ngolden: [{ground_truth: a, prediction: b, expect: right}]",
            "'right' is no category label",
        ),
    ],
)
def test_unusable_files_are_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "prompt.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_prompt(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["nonsense", "../compact", "missing.yaml"])
def test_unknown_prompts_are_refused_with_what_there_is(name: str) -> None:
    with pytest.raises(ConfigError, match=r"known: base, compact|cannot be read"):
        load_prompt(name)
