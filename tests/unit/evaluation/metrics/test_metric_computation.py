"""Computation of results from tables on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scored_cells import evaluation, prediction, verdict, write

from speciarl.errors import DataError
from speciarl.evaluation import matrix, results, tables
from speciarl.evaluation.config import EvaluationConfig
from speciarl.evaluation.matrix import Asked
from speciarl.evaluation.metrics import answers, compute, over_budget, responses
from speciarl.evaluation.outcome import Outcome
from speciarl.evaluation.verify.rows import content_hash

NAMES = {"samoyed": ["dog", "samoyed"], "beagle": ["dog", "beagle"], "manx": []}


def two_by_two() -> EvaluationConfig:
    return evaluation(
        models={"base": {"path": "b"}, "ours": {"path": "o"}},
        datasets={"pets": {"file": "p", "group": "fine-grained"}, "cub": {"file": "c"}},
        judges={"qwen": {"use": "q"}, "llama": {"use": "l"}},
        sampling={"n": 2, "temperature": 0.6},
    )


def fill(out: Path, config: EvaluationConfig) -> None:
    """Tables of all cells; one question of ours on pets failed, one verdict of llama's is missing."""
    for seed, (judge, asked) in enumerate(matrix.judged(config)):
        chance = np.random.default_rng(seed)
        rows = []
        for number in range(9):
            name = list(NAMES)[number % 3]
            for index in range(2):
                row = prediction(f"q{number}", index, ground_truth=name, label_path=NAMES[name])
                outcome, reason = Outcome(int(chance.integers(0, 6))), None
                if (asked.model, asked.dataset, number) == ("ours", "pets", 4):
                    row |= {"failure": "image", "text": None, "answer": None, "tokens": None, "finish_reason": None}
                    outcome, reason = Outcome.UNSCORED, "prediction:image"
                if judge == "llama" and number == index == 0:
                    outcome, reason = Outcome.UNSCORED, "timeout"
                rows.append((row, outcome, reason))
        write(out, asked, judge, rows)


def test_all_cells_averages_and_differences(tmp_path: Path) -> None:
    config = two_by_two()
    fill(tmp_path, config)
    found = compute(config, tmp_path, {"speciarl": "1"})
    assert [(cell.judge, cell.model, cell.dataset) for cell in found.cells] == [
        (judge, asked.model, asked.dataset) for judge, asked in matrix.judged(config)
    ]
    failed = next(cell for cell in found.cells if (cell.judge, cell.model, cell.dataset) == ("llama", "ours", "pets"))
    assert (failed.questions, failed.answers, failed.classes, failed.group) == (9, 18, 3, "fine-grained")
    assert failed.unscored == {"prediction:image": 2, "timeout": 1}
    assert failed.failed == {"image": 1}
    assert {name: len(curve) for name, curve in failed.best_of.items()} == {"correctness": 2, "specificity": 2, "hm": 2}
    assert failed.metrics["text_inclusion"].value == 0
    assert {(one.judge, one.model, one.group) for one in found.averages} == {
        (judge, model, group)
        for judge in config.judges
        for model in config.models
        for group in ("fine-grained", "all data sets")
    }
    assert {(one.first, one.second, one.dataset, one.judge) for one in found.differences} == {
        ("base/as_built", "ours/as_built", dataset, judge) for judge in config.judges for dataset in config.datasets
    }
    named = {name for cell in found.cells for name in cell.metrics} | {"best_of", "interval", "bounds"}
    assert named == set(found.definitions)


def test_the_same_tables_give_the_same_bytes_and_can_be_read_again(tmp_path: Path) -> None:
    config = two_by_two()
    fill(tmp_path, config)
    for name in ("one.json", "two.json"):
        compute(config, tmp_path, {"speciarl": "1"}).save(tmp_path / name)
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    assert results.load(tmp_path / "one.json").cells == compute(config, tmp_path, {}).cells


def test_cells_over_budget_are_named(tmp_path: Path) -> None:
    config = two_by_two()
    fill(tmp_path, config)
    found = compute(config, tmp_path, {})
    lines = over_budget(found, config)
    assert lines[0] == (
        "ours / pets / as_built by qwen: 2 of 18 answers unscored (prediction:image 2), more than max_unscored 0.01 "
        "allows; run `speciarl evaluate` again to try them once more, or raise max_unscored"
    )
    assert "1 of 9 questions failed (image 1), more than max_failed 0.01" in lines[1]
    assert len(lines) == 2 + 5  # llama misses one more in each of four cells
    generous = config.model_copy(update={"max_unscored": 0.2, "max_failed": 0.2})
    assert over_budget(found, generous) == []


ASKED = Asked("m", "d", "as_built")


def verdicts_on(found: responses.Responses, out: Path, too_long_chars: int = 512) -> answers.Answers:
    return answers.load(ASKED.verdicts(out, "j"), ASKED.predictions(out), found, too_long_chars)


def test_responses_of_a_table(tmp_path: Path) -> None:
    rows = [
        (prediction("b", 0, answer="Dog", tokens=None), Outcome.GENERIC, None),
        (prediction("b", 1, answer=None, finish_reason="length"), Outcome.UNPARSABLE, None),
        (
            prediction("a", 0, data_source="cub", label_path=[], ground_truth="wren", finish_reason=None),
            Outcome.WRONG,
            None,
        ),
    ]
    write(tmp_path, ASKED, "j", rows)
    found = responses.load(ASKED.predictions(tmp_path))
    assert found.shape == (2, 2)
    assert found.class_names == [("cub", "wren"), ("pets", "dog", "samoyed")]
    assert found.classes.tolist() == [1, 0]
    assert found.predicted.tolist() == [[True, True], [True, False]]
    assert found.tokens.tolist() == [[-1, 7], [7, -1]]
    assert found.capped.tolist() == [[False, True], [False, False]]
    assert found.ended.tolist() == [[True, True], [False, False]]
    texts = [[found.pairs[pair] if pair >= 0 else None for pair in row] for row in found.pair.tolist()]
    assert texts == [[("samoyed", "Dog"), None], [("wren", "dog"), None]]
    judged = verdicts_on(found, tmp_path)
    assert judged.outcomes.tolist() == [[2, -1], [0, -3]]
    assert judged.unscored == {"missing": 1}


def test_verdicts_on_other_answers_are_refused(tmp_path: Path) -> None:
    row = prediction("a", 0)
    write(tmp_path, ASKED, "j", [(row, Outcome.WRONG, None)])
    other = verdict(prediction("b", 0), Outcome.WRONG)
    tables.write(ASKED.verdicts(tmp_path, "j"), tables.VERDICTS, [other], {})
    found = responses.load(ASKED.predictions(tmp_path))
    with pytest.raises(DataError, match=r"as_built\.parquet is about other answers"):
        verdicts_on(found, tmp_path)
    unknown = verdict(row, Outcome.WRONG) | {"outcome": 9}
    tables.write(ASKED.verdicts(tmp_path, "j"), tables.VERDICTS, [unknown], {})
    with pytest.raises(DataError, match="an outcome that there is not"):
        verdicts_on(found, tmp_path)
    with pytest.raises(DataError, match="cannot be read"):
        compute(evaluation(models={"gone": {"path": "g"}}), tmp_path, {})


def test_verdicts_of_earlier_predictions_or_by_another_limit_are_refused(tmp_path: Path) -> None:
    rows = [prediction("a", 0)]
    write(tmp_path, ASKED, "j", [(rows[0], Outcome.GENERIC, None)])
    now = {"predictions_sha": content_hash(ASKED.predictions(tmp_path)), "too_long_chars": 512}
    verdicts = [verdict(rows[0], Outcome.GENERIC)]
    tables.write(ASKED.verdicts(tmp_path, "j"), tables.VERDICTS, verdicts, now)
    found = responses.load(ASKED.predictions(tmp_path))
    assert verdicts_on(found, tmp_path).outcomes.tolist() == [[Outcome.GENERIC]]
    with pytest.raises(DataError, match=r"too_long_chars=512, not 9; run the stage `verify` again$"):
        verdicts_on(found, tmp_path, too_long_chars=9)
    tables.write(ASKED.predictions(tmp_path), tables.PREDICTIONS, [prediction("a", 0, answer="cat")], {})
    with pytest.raises(DataError, match=r"is of earlier predictions than .*; run the stage `verify` again$"):
        compute(evaluation(), tmp_path, {})


def test_a_data_set_without_rows_has_no_numbers(tmp_path: Path) -> None:
    write(tmp_path, ASKED, "j", [])
    cell = compute(evaluation(), tmp_path, {}).cells[0]
    assert (cell.questions, cell.classes, cell.metrics["hm"].value, cell.metrics["hm"].low) == (0, 0, None, None)
