"""``speciarl calibrate``: what it writes and shows, what it corrects, and how it ends."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from made_predictions import write_predictions
from rich.console import Console
from typer.testing import CliRunner, Result

from speciarl.evaluation import matrix
from speciarl.evaluation.calibrate import report
from speciarl.evaluation.calibrate.calibration import Calibration, calibrate
from speciarl.evaluation.calibrate.cli import command
from speciarl.evaluation.calibrate.gold import GoldPair, from_file, gold_pairs
from speciarl.evaluation.calibrate.judging import Trial
from speciarl.evaluation.config import BootstrapConfig, parse
from speciarl.evaluation.verify import verify
from speciarl.verdict import Judgement, Reason, Source, Unscorable, Verdict

ROOTS = ("animal", "plant")
NODES: list[dict[str, Any]] = [{"name": root} for root in ROOTS]
NODES += [{"name": f"{root} family {one}", "parent": root} for root in ROOTS for one in range(3)]
NODES += [
    {"name": f"{root} kind {one}{two}", "parent": f"{root} family {one}", "aliases": [f"{root} alias {one}{two}"]}
    for root in ROOTS
    for one in range(3)
    for two in range(3)
]


@pytest.fixture
def hierarchy(tmp_path: Path) -> Path:
    file = tmp_path / "taxonomy.json"
    file.write_text(json.dumps({"version": 1, "nodes": NODES}))
    return file


def run(hierarchy: Path, *more: str) -> Result:
    app = typer.Typer()
    app.command()(command)
    judge = ["taxonomy", f"taxonomy={hierarchy}", "--per-kind", "8", "--repeats", "6"]
    return CliRunner().invoke(app, [*judge, "--out", str(hierarchy.parent / "found"), *more])


def evaluation(folder: Path, hierarchy: Path) -> Path:
    """A verified evaluation of two models, one better than the other, by two judges who know it all."""
    judge = {"use": "taxonomy", "settings": {"taxonomy": str(hierarchy)}}
    plain = {
        "out": str(folder),
        "models": {"good": {"path": "a"}, "bad": {"path": "b"}},
        "datasets": {"kinds": {"file": "kinds.parquet"}},
        "judges": {"gold": judge, "again": judge},
        "metrics": {"bootstrap": {"draws": 100}},
    }
    config = parse(plain)
    for asked, answer in zip(matrix.asked(config), ("animal kind 00", "animal family 0"), strict=True):
        truths = [node["name"] for node in NODES if "alias" in str(node)]
        pairs = [(truth, truth if one % 2 else answer) for one, truth in enumerate(truths)]
        write_predictions(asked.predictions(folder), pairs)
    verify(config, folder, Console(file=io.StringIO()))
    (folder / matrix.SETTINGS).write_text(yaml.safe_dump(plain, sort_keys=False))
    return folder


def test_a_perfect_judge_is_fit_and_corrects_nothing(tmp_path: Path, hierarchy: Path) -> None:
    folder = evaluation(tmp_path / "run", hierarchy)
    done = run(hierarchy, "--taxonomy", str(hierarchy), "--run", str(folder))
    assert done.exit_code == 0, done.output
    assert "1.000" in done.output
    found = json.loads((tmp_path / "found" / "calibration.json").read_text())
    assert found["accuracy"]["value"] == found["kappa_quadratic"]["value"] == 1
    assert found["flips_repeated"]["value"] == found["flips_under_load"]["value"] == 0
    assert found["kinds"] == dict.fromkeys(
        ("same", "alias", "parent", "ancestor", "child", "sibling", "refusal", "several"), 8
    )
    assert [(one["first"], one["second"], one["models"], one["tau"]) for one in found["rankings"]] == [
        ("gold", "again", 2, 1.0)
    ]
    assert len(found["corrected"]) == 4  # two models by two judges of the same identity
    for cell in found["corrected"]:
        reported, corrected = cell["hm"]["reported"], cell["hm"]["corrected"]
        assert corrected["value"] == pytest.approx(reported["value"])
        assert reported["low"] <= reported["value"] <= reported["high"]
    good, bad = (cell["hm"]["reported"]["value"] for cell in found["corrected"][:2])
    assert good != bad
    text = (tmp_path / "found" / "calibration.md").read_text()
    assert "| good / kinds / as_built |" in text
    assert "| less specific | 8 | . | . | . | 100 [68, 100] | . | . |" in text


def test_the_same_calibration_is_the_same_bytes(tmp_path: Path, hierarchy: Path) -> None:
    files = []
    for _ in range(2):
        assert run(hierarchy, "--taxonomy", str(hierarchy)).exit_code == 0
        files.append([(tmp_path / "found" / f"calibration.{kind}").read_bytes() for kind in ("json", "md")])
    assert files[0] == files[1]


def test_a_judge_of_another_hierarchy_is_unfit(tmp_path: Path, hierarchy: Path) -> None:
    other = tmp_path / "other.json"
    nodes = [{**node, "parent": node.get("parent") and "odd"} for node in NODES]
    other.write_text(json.dumps({"version": 1, "nodes": [*nodes, {"name": "odd"}]}))
    done = run(other, "--taxonomy", str(hierarchy))
    assert done.exit_code == 1
    found = json.loads((tmp_path / "found" / "calibration.json").read_text())
    assert found["recall"]["less_specific"]["value"] == 0
    assert found["recall"]["specific"]["value"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give the hierarchy by --data or by --taxonomy, one of them"),
        (("--taxonomy", "none.json"), "none.json cannot be read"),
        (("--taxonomy", "HIERARCHY", "--run", "nowhere"), "evaluation.yaml cannot be read"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(hierarchy: Path, arguments: tuple[str, ...], message: str) -> None:
    done = run(hierarchy, *(str(hierarchy) if one == "HIERARCHY" else one for one in arguments))
    assert done.exit_code == 2
    assert message in done.output
    assert len(done.output.strip().splitlines()) == 1


def test_a_run_of_other_judges_is_not_corrected(tmp_path: Path, hierarchy: Path) -> None:
    folder = evaluation(tmp_path / "run", hierarchy)
    done = run(hierarchy, "max_string_chars=99", "--taxonomy", str(hierarchy), "--run", str(folder))
    assert done.exit_code == 2
    assert "no verdicts of this judge (gold differs in max_string_chars, again differs in max" in done.output


def made(hierarchy: Path, judge_one: Any) -> tuple[Calibration, list[GoldPair]]:
    pairs = gold_pairs(from_file(hierarchy), 8, 0)
    judgements: list[Judgement] = [judge_one(pair) for pair in pairs]
    trial = Trial(judgements, [0, 1], (judgements[:2], judgements[:2]))
    return calibrate("[red]fake", {}, pairs, trial, BootstrapConfig(draws=100))[0], pairs


def test_unscored_pairs_are_counted_and_take_no_part(hierarchy: Path) -> None:
    def forgetful(pair: GoldPair) -> Judgement:
        if pair.pair.ground_truth.startswith("plant"):
            return Unscorable(Reason.OFF_LABEL, "it said maybe")
        spread = tuple(0.95 if category == pair.category else 0.01 for category in range(6))
        return Verdict(pair.category, 2.0, Source.LIVE, spread)

    found, pairs = made(hierarchy, forgetful)
    lost = sum(pair.pair.ground_truth.startswith("plant") for pair in pairs)
    assert found.unscored == {"off_label": lost}
    assert found.unscored_share == pytest.approx(lost / len(pairs))
    assert found.accuracy.value == 1
    assert found.calibration_error == pytest.approx(0.05)
    assert sum(one.pairs for one in found.margins) == len(pairs) - lost
    shown = io.StringIO()
    report.show(found, Console(file=shown, width=120))
    assert "[red]fake" in shown.getvalue()  # a name, not markup
    assert f"unscored: off_label {lost}" in shown.getvalue().replace("\n", " ")
    assert "By margin" in shown.getvalue()


def test_nothing_is_found_out_about_a_judge_that_says_nothing(hierarchy: Path) -> None:
    found, _ = made(hierarchy, lambda _: Unscorable(Reason.TIMEOUT, "late"))
    assert found.unscored_share == 1
    assert found.accuracy.value is found.kappa.value is found.flips_repeated.value is None
    assert json.loads(report.to_json(found))["kappa"]["value"] is None
    assert "| wrong | 0 | - |" in report.to_markdown(found)
