"""Others' files become tables of ours: the release's NDJSON and lmms-owc's JSONL."""

import json
from pathlib import Path
from typing import Any

import pytest

from speciarl.errors import DataError
from speciarl.evaluation import tables
from speciarl.evaluation.matrix import Asked
from speciarl.evaluation.outcome import Outcome
from speciarl.evaluation.report import foreign


def released(sample: str, index: int = 0, **changed: Any) -> dict[str, Any]:
    """A record as the release's predictor writes it."""
    context = {
        "data_source": "cub200", "sample_id": sample, "index": int(sample[1:]), "split": "test", "ability": "x",
        "prompt": [{"role": "user", "content": [{"type": "text", "text": "What is it?"}]}],
        "prompt_info": {"name": "reasoning prompt", "answer_format": {}},
        "reward_model": {"style": "model", "ground_truth": "lark"},
        "extra_info": {"data_source": "cub200", "index_orig": 1, "source_split": "test", "source_index": 3},
    }  # fmt: skip
    record = {
        "sample_id": sample, "prediction_group_id": sample, "model_name": "org/model 7B", "prediction_index": index,
        "vlm_prediction": "<think>…</think><answer>horned lark</answer>", "data_context": context,
    }  # fmt: skip
    return {**record, **changed}


def verified(sample: str, index: int = 0, **changed: Any) -> dict[str, Any]:
    """The same with a verdict, as its verifier writes it."""
    verdict = {
        "parsed_prediction": "horned lark", "status": "success", "classification": "more specific",
        "verification_config": {"model": "llama-3-70b", "verifier_prompt": "standard", "api_base_url": "http://x"},
    }  # fmt: skip
    return {**released(sample, index), **verdict, **changed}


def prompted(sample: str, model: str) -> dict[str, Any]:
    """One by another model with another prompt."""
    record = verified(sample, model_name=model)
    record["data_context"]["prompt_info"]["name"] = "short"
    return record


def written(path: Path, records: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def read(out: Path, asked: Asked, judge: str) -> list[tuple[str, int, Outcome, str | None]]:
    rows = tables.read(asked.verdicts(out, judge), tables.VERDICTS).to_pylist()
    return [(row["sample_id"], row["index"], Outcome(row["outcome"]), row["reason"]) for row in rows]


def test_verdicts_of_the_release_become_outcomes_and_failures_stay_failures(tmp_path: Path) -> None:
    failed = {"status": "preparation_failure", "classification": None, "parsed_prediction": ""}
    file = written(
        tmp_path / "verification_1.ndjson",
        [
            verified("s2"),
            verified("s1", **failed, error_type="parsing_vlm_output"),
            verified("s3", **failed, error_type="prediction_too_long"),
            verified(
                "s4", status="api_failure", classification=None, error_type="api_network_error", error_detail="down"
            ),
        ],
    )
    config = foreign.convert([file], "release", tmp_path / "out")
    assert (list(config.models), list(config.datasets), list(config.judges)) == (
        ["org-model-7B"],
        ["cub200"],
        ["llama-3-70b-standard"],
    )
    asked = Asked("org-model-7B", "cub200", "reasoning-prompt")
    assert read(tmp_path / "out", asked, "llama-3-70b-standard") == [
        ("s1", 0, Outcome.UNPARSABLE, None),
        ("s2", 0, Outcome.MORE_SPECIFIC, None),
        ("s3", 0, Outcome.TOO_LONG, None),
        ("s4", 0, Outcome.UNSCORED, "connection"),
    ]
    rows = tables.read(asked.predictions(tmp_path / "out"), tables.PREDICTIONS).to_pylist()
    assert [row["answer"] for row in rows] == [None, "horned lark", None, "horned lark"]
    assert rows[1]["ground_truth"] == "lark"
    assert tables.facts(asked.predictions(tmp_path / "out"))["pixels"] == "not recorded"


def test_answers_that_the_release_dropped_are_failures(tmp_path: Path) -> None:
    file = written(tmp_path / "exploration_1.ndjson", [verified("s1", 0), verified("s1", 1), verified("s2", 1)])
    foreign.convert([file], "release", tmp_path)
    asked = Asked("org-model-7B", "cub200", "reasoning-prompt")
    assert read(tmp_path, asked, "llama-3-70b-standard")[2:] == [
        ("s2", 0, Outcome.UNSCORED, "prediction:missing"),
        ("s2", 1, Outcome.MORE_SPECIFIC, None),
    ]
    rows = tables.read(asked.predictions(tmp_path), tables.PREDICTIONS).to_pylist()
    assert [(row["failure"], row["text"] is None) for row in rows] == [(None, False)] * 2 + [
        ("missing", True),
        (None, False),
    ]


def test_samples_that_one_model_dropped_are_failures_of_it(tmp_path: Path) -> None:
    one = written(tmp_path / "one.ndjson", [verified("s1"), verified("s2")])
    other = written(tmp_path / "other.ndjson", [verified("s3", model_name="other"), verified("s2", model_name="other")])
    foreign.convert([one, other], "release", tmp_path)
    cells = [Asked(name, "cub200", "reasoning-prompt") for name in ("org-model-7B", "other")]
    found = [[outcome for *_, outcome, _ in read(tmp_path, asked, "llama-3-70b-standard")] for asked in cells]
    right, lost = Outcome.MORE_SPECIFIC, Outcome.UNSCORED
    assert found == [[right, right, lost], [lost, right, right]]
    rows = [tables.read(asked.predictions(tmp_path), tables.PREDICTIONS).to_pylist() for asked in cells]
    assert [row["sample_id"] for row in rows[0]] == ["s1", "s2", "s3"]
    assert [row["failure"] for row in rows[0]] == [None, None, "missing"]
    assert [row["question"] for row in rows[0]] == [row["question"] for row in rows[1]]
    assert len({row["key"] for of in rows for row in of}) == 6
    assert len({tables.facts(asked.predictions(tmp_path))["data_sha"] for asked in cells}) == 1


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([verified("s1"), prompted("s2", "other")], r"no answers for org-model-7B / cub200 / short, as for others"),
        (
            [verified("s1"), released("s2", model_name="other")],
            "no verdicts of llama-3-70b-standard for other / cub200",
        ),
        ([verified("s1"), verified("s2", model_name="org-model 7B")], "'org-model 7B' and model 'org/model 7B' would"),
    ],
)
def test_an_import_that_is_no_whole_matrix_is_refused(
    tmp_path: Path, records: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(DataError, match=message) as error:
        foreign.convert([written(tmp_path / "a.ndjson", records)], "release", tmp_path / "out")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_predictions_of_the_release_are_read_without_verdicts(tmp_path: Path) -> None:
    file = written(tmp_path / "predictions_1.ndjson", [released("s1"), released("s2", vlm_prediction="no tag")])
    foreign.convert([file], "release", tmp_path)
    rows = tables.read(
        Asked("org-model-7B", "cub200", "reasoning-prompt").predictions(tmp_path), tables.PREDICTIONS
    ).to_pylist()
    assert [row["answer"] for row in rows] == ["horned lark", None]
    assert not (tmp_path / "verdicts").exists()


def test_samples_of_lmms_owc_are_read_by_their_folders(tmp_path: Path) -> None:
    records = [
        {"doc_id": 1, "target": "2012 Audi A5", "resps": [["An Audi"]], "filtered_resps": ["An Audi"]},
        {"doc_id": 0, "target": "2007 Fiat 500", "filtered_resps": [["first turn", "A Fiat 500"]]},
    ]
    file = written(tmp_path / "stanford_cars" / "qwen2_vl" / "2025_samples_stanford_cars.jsonl", records)
    config = foreign.convert([file], "lmms-owc", tmp_path / "out")
    assert list(config.models) == ["qwen2_vl"]
    rows = tables.read(
        Asked("qwen2_vl", "stanford_cars", "as_built").predictions(tmp_path / "out"), tables.PREDICTIONS
    ).to_pylist()
    assert [(row["sample_id"], row["ground_truth"], row["answer"]) for row in rows] == [
        ("0", "2007 Fiat 500", "A Fiat 500"),
        ("1", "2012 Audi A5", "An Audi"),
    ]


@pytest.mark.parametrize(
    ("kind", "lines", "message"),
    [
        ("release", '{"sample_id": "s1"}\n', r"line 1 is no record of the release \(KeyError\('data_context'\)\)"),
        ("release", "\n{broken\n", "line 2 is not JSON"),
        ("lmms-owc", "[1]\n", "line 1 is no JSON object"),
        ("lmms-owc", '{"doc_id": 1, "target": "x", "resps": []}\n', "line 1 is no sample of lmms-owc"),
        ("lmms-owc", "", "no answers in"),
        ("other", "", "'other' is no format; choose one of release, lmms-owc"),
    ],
)
def test_what_cannot_be_read_is_told_in_one_line(tmp_path: Path, kind: str, lines: str, message: str) -> None:
    file = tmp_path / "file.ndjson"
    file.write_text(lines)
    with pytest.raises(DataError, match=message) as error:
        foreign.convert([file], kind, tmp_path)
    assert "\n" not in str(error.value)


def test_an_answer_given_twice_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path / "a.ndjson", [released("s1"), verified("s1")])
    with pytest.raises(DataError, match="answer 0 to sample s1 of org/model 7B is given twice"):
        foreign.convert([file], "release", tmp_path)
    with pytest.raises(DataError, match="cannot be read"):
        foreign.convert([tmp_path / "gone"], "release", tmp_path)
