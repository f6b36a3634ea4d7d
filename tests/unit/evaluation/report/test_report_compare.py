"""Comparisons of two evaluations: what is paired, and which field a refusal names."""

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import evaluation_demo
import pytest
from rich.console import Console

from speciarl.errors import DataError
from speciarl.evaluation import tables
from speciarl.evaluation.config import EvaluationConfig
from speciarl.evaluation.matrix import Asked
from speciarl.evaluation.report import comparable, compare, leaderboard
from speciarl.evaluation.report.compare import Side
from speciarl.evaluation.results import Difference, Estimate, load


class FakeStatistics:
    """Stands in for the paired statistics: tells what it was asked, and finds no difference."""

    def __init__(self) -> None:
        self.pairs: list[tuple[str, str, str]] = []

    def __call__(self, config: EvaluationConfig, pairs: Sequence[tuple[Side, Side]]) -> list[Difference]:
        self.pairs = [(first.label, second.label, first.asked.dataset) for first, second in pairs]
        nothing = Estimate(0.0, -0.1, 0.1)
        return [Difference(*names, "llama", "hm", nothing, 1.0, 1.0, 0.1) for names in self.pairs]


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """Two evaluations of one model each."""
    folders = tmp_path / "before", tmp_path / "after"
    for folder, model in zip(folders, ("base", "speciarl"), strict=True):
        evaluation_demo.make(folder, samples=8, models=(model,), pictures=False)
    return folders


def rewrite(path: Path, schema: Any, facts: dict[str, Any], rows: Any = None) -> None:
    """Write a table again with other facts or rows."""
    kept = tables.read(path, schema).to_pylist() if rows is None else rows
    tables.write(path, schema, kept, {**tables.facts(path), **facts})


def test_single_runs_are_paired_on_every_data_set(two: tuple[Path, Path]) -> None:
    asked = FakeStatistics()
    differences = compare.compare(*two, asked)
    assert asked.pairs == [
        ("base/as_built", "speciarl/as_built", name) for name in ("aircraft", "cub", "flowers", "pets")
    ]
    shown = Console(record=True, width=140)
    compare.show(differences, shown)
    assert "[-.100, +.100]" in shown.export_text()


def test_runs_of_one_name_are_told_apart_by_their_folder(two: tuple[Path, Path]) -> None:
    asked = FakeStatistics()
    compare.compare(two[0], two[0], asked)
    assert {pair[:2] for pair in asked.pairs} == {("before: base/as_built", "before: base/as_built")}


@pytest.mark.parametrize("names", [("old/run", "new/run"), ("run", "new/run")])
def test_folders_of_one_name_are_told_apart_by_those_above(tmp_path: Path, names: tuple[str, str]) -> None:
    folders = [tmp_path / name for name in names]
    for folder in folders:
        evaluation_demo.make(folder, samples=8, models=("base",), pictures=False)
    asked = FakeStatistics()
    compare.compare(folders[0], folders[1], asked)
    assert {pair[:2] for pair in asked.pairs} == {(f"{names[0]}: base/as_built", f"{names[1]}: base/as_built")}


def test_a_folder_that_is_the_current_one_has_its_name(two: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(two[0])
    asked = FakeStatistics()
    compare.compare(Path(), Path(), asked)
    assert {pair[:2] for pair in asked.pairs} == {("before: base/as_built", "before: base/as_built")}


def test_only_what_is_sure_whatever_is_unscored_is_bold() -> None:
    sure = Difference("a", "b", "d", "j", "hm", Estimate(0.2, 0.1, 0.3, 0.15, 0.25), 0.001, 0.01, 0.1)
    for one, bold in ((sure, True), (replace(sure, estimate=Estimate(0.2, 0.1, 0.3, -0.05, 0.25)), False)):
        shown = Console(record=True, width=140, file=io.StringIO(), force_terminal=True)
        compare.show([one], shown)
        row = next(line for line in shown.export_text(styles=True).splitlines() if "+.200" in line)
        assert (".150 to .250" if bold else "-.050 to .250") in row
        assert ("\x1b[1m" in row) == bold


@pytest.mark.parametrize(
    ("facts", "named"),
    [
        ({"prompt_sha": "other"}, "prompt text"),
        ({"data_sha": "other"}, "data"),
        ({"pixels": [None, 4096]}, "image pixels"),
    ],
)
def test_a_refusal_names_the_field_of_the_predictions(
    two: tuple[Path, Path], facts: dict[str, Any], named: str
) -> None:
    rewrite(Asked("speciarl", "pets", "as_built").predictions(two[1]), tables.PREDICTIONS, facts)
    with pytest.raises(comparable.NotComparable, match=rf"pets .*not comparable, {named} is") as refusal:
        compare.compare(*two, FakeStatistics())
    assert "\n" not in str(refusal.value)


def test_a_refusal_names_the_field_of_the_judge(two: tuple[Path, Path]) -> None:
    path = Asked("speciarl", "pets", "as_built").verdicts(two[1], "llama")
    rewrite(path, tables.VERDICTS, {"judge": {"model": "llama", "decoding": "free"}})
    with pytest.raises(comparable.NotComparable, match=r"judge\.decoding is null in the first and \"free\""):
        compare.compare(*two, FakeStatistics())


def test_a_refusal_names_the_sample_with_another_question(two: tuple[Path, Path]) -> None:
    path = Asked("speciarl", "cub", "as_built").predictions(two[1])
    rows = tables.read(path, tables.PREDICTIONS).to_pylist()
    rows[3]["question"] = "another"
    rewrite(path, tables.PREDICTIONS, {}, rows)
    with pytest.raises(comparable.NotComparable, match="sample cub/000003 has another prompt or image"):
        compare.compare(*two, FakeStatistics())


def test_a_refusal_names_the_definition(two: tuple[Path, Path]) -> None:
    file = two[1] / "results.json"
    content = json.loads(file.read_text())
    content["settings"]["metrics"]["weights"]["generic"] = 0.0
    file.write_text(json.dumps(content))
    with pytest.raises(comparable.NotComparable, match=r"definition of metrics\.weights\.generic is 0\.25"):
        compare.compare(*two, FakeStatistics())


def test_facts_that_are_not_told_are_not_taken_for_equal(two: tuple[Path, Path]) -> None:
    for folder, model in zip(two, ("base", "speciarl"), strict=True):
        path = Asked(model, "pets", "as_built").predictions(folder)
        tables.write(path, tables.PREDICTIONS, tables.read(path, tables.PREDICTIONS).to_pylist(), {"data_sha": "1"})
    with pytest.raises(comparable.NotComparable, match=r"does not tell its prompt text \(prompt_sha\)"):
        compare.compare(*two, FakeStatistics())


def test_a_leaderboard_ranks_all_and_marks_what_is_not_comparable(two: tuple[Path, Path], tmp_path: Path) -> None:
    found = leaderboard.entries([tmp_path])
    assert [one.row.run.model for one in found] == ["speciarl", "base"]
    assert [one.differs for one in found] == [(), ()]
    rewrite(Asked("base", "pets", "as_built").predictions(two[0]), tables.PREDICTIONS, {"data_sha": "other"})
    rewrite(
        Asked("base", "flowers", "as_built").verdicts(two[0], "llama"), tables.VERDICTS, {"judge": {"model": "qwen"}}
    )
    rewrite(Asked("base", "pets", "as_built").verdicts(two[0], "llama"), tables.VERDICTS, {"judge": {"model": "qwen"}})
    best, other = leaderboard.entries([two[0], two[1], tmp_path])
    assert best.row.run.model == "speciarl"
    assert other.differs == ("data of pets", "judge.model")
    shown = Console(record=True, width=200)
    leaderboard.show([best, other], shown)
    assert "data of pets, judge.model" in shown.export_text()


def test_a_leaderboard_marks_other_pixels_and_another_prompt_of_the_same_name(
    two: tuple[Path, Path], tmp_path: Path
) -> None:
    pets = Asked("base", "pets", "as_built").predictions(two[0])
    rewrite(pets, tables.PREDICTIONS, {"pixels": [None, 4096], "prompt_sha": "other"})
    best, other = leaderboard.entries([tmp_path])
    assert (best.differs, other.differs) == ((), ("image pixels of pets", "prompt text of pets"))
    renamed = replace(other, row=replace(other.row, run=replace(other.row.run, prompt="short")))
    assert leaderboard._differing(best, renamed) == ("image pixels of pets",)


def test_a_leaderboard_without_tables_goes_by_the_settings(two: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "alone").mkdir()
    load(two[1] / "results.json").save(tmp_path / "alone" / "results.json")
    (entry,) = leaderboard.entries([tmp_path / "alone"])
    assert entry.basis["judge"] == {"use": "llama", "settings": {}}
    (tmp_path / "nothing").mkdir()
    with pytest.raises(DataError, match=r"no results\.json below"):
        leaderboard.entries([tmp_path / "nothing"])
