"""The demo in two steps: veRL's entry point, Ray, FSDP, vLLM rollouts, a managed vLLM judge, our worker, the report."""

import html
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pyarrow.parquet as pq
import pytest

from speciarl.evaluation.outcome import Outcome
from speciarl.evaluation.results import load

DEMO = Path(__file__).parents[2] / "examples" / "laptop" / "demo.py"
DEADLINE_S = 900
STEPS = 2
VALIDATED = 272
"""Half of what the demo validates on."""
DOMAINS = {"emoji/animals", "emoji/food", "emoji/travel", "emoji/objects"}
RATES = ("wrong", "abstain", "generic", "less_specific", "specific", "more_specific", "unparsable")


class Run(NamedTuple):
    folder: Path
    data: Path
    metrics: dict[int, dict[str, Any]]
    printed: str


def finish(command: list[str], folder: Path, **environment: str) -> str:
    """Run to the end; returns what was printed."""
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=DEADLINE_S, cwd=folder
    )
    log = folder / "train.log"
    tail = log.read_text(errors="replace")[-6000:] if log.is_file() else ""
    assert done.returncode == 0, done.stdout + done.stderr + tail
    return done.stdout


def read_metrics(path: Path) -> dict[int, dict[str, Any]]:
    return {row["step"]: row["data"] for row in map(json.loads, path.read_text().splitlines())}


def answers(run: Run, step: int) -> list[dict[str, Any]]:
    lines = (run.folder / "validation" / f"{step}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder, data = tmp_path_factory.mktemp("run"), tmp_path_factory.mktemp("data") / "emoji"
    command = [sys.executable, str(DEMO), "--out", str(folder), "--data", str(data), "--steps", str(STEPS)]
    overrides = [f"trainer.save_freq={STEPS}", f"data.val_max_samples={VALIDATED}"]
    printed = finish([*command, *overrides], folder, COLUMNS="200")
    return Run(folder, data, read_metrics(folder / "metrics" / "000.jsonl"), printed)


def test_every_step_is_measured(run: Run) -> None:
    assert sorted(run.metrics) == [0, 1, 2]
    for step in (1, 2):
        metrics = run.metrics[step]
        assert sum(metrics[f"speciarl/rate/{name}"] for name in RATES) == pytest.approx(1)
        assert metrics["speciarl/rate/unparsable"] <= 0.05
        assert metrics["speciarl/unscorable_rate"] == 0
        assert metrics["speciarl/failed_rollouts"] == 0
        assert 0 <= metrics["speciarl/verifier/wait_s"] < metrics["timing_s/step"]
        assert metrics["actor/grad_norm"] > 0


def test_the_reward_the_optimiser_saw_is_the_one_the_categories_imply(run: Run) -> None:
    for step in (1, 2):
        metrics = run.metrics[step]
        assert metrics["critic/score/max"] == 1
        assert metrics["critic/score/min"] >= -1
        # At least one rollout of a group earns 1 unless all are wrong; nobody wrong or unparsable ever does.
        earning = 1 - metrics["speciarl/rate/wrong"] - metrics["speciarl/rate/unparsable"]
        assert metrics["critic/score/mean"] <= earning + 1e-6


def test_rollout_and_trainer_agree_on_log_probabilities(run: Run) -> None:
    """The weights that vLLM sampled with are the trainer's: after a step too, so the sync works."""
    for step in (1, 2):
        assert run.metrics[step]["training/rollout_probs_diff_max"] < 1e-3


def test_the_judge_really_judged(run: Run) -> None:
    assert run.metrics[STEPS]["speciarl/verifier/total/live"] > 0
    assert list((run.folder / "judge").glob("*.log"))
    assert not list((run.folder / "judge").glob("verifier.*"))  # the service's key and port ended with the run
    assert "live" in {answer["verdict_source"] for answer in answers(run, 0)}


def test_validation_covers_every_domain_with_one_set_of_keys(run: Run) -> None:
    stored = answers(run, STEPS)
    assert {answer["data_source"] for answer in stored} == DOMAINS
    assert len({tuple(answer) for answer in stored}) == 1
    assert len({answer["sample_id"] for answer in stored}) == len(stored)
    for domain in DOMAINS:
        assert run.metrics[0][f"val-core/{domain}/unscored_rate"] == 0
        assert 0 <= run.metrics[0][f"val-core/{domain}/hm"] <= 1


def test_the_policy_starts_generic_and_correct(run: Run) -> None:
    start = run.metrics[0]
    assert start["val-core/emoji/animals/correctness"] > 0.9
    assert start["val-core/emoji/animals/specificity"] < 0.4


def test_the_report_is_complete(run: Run) -> None:
    assert "in domain" in run.printed
    assert "out of domain" in run.printed
    assert "Next:" in run.printed
    assert (run.folder / "report.md").read_text().startswith("|")
    assert (run.folder / "report.png").stat().st_size > 10_000


def works_in(process: psutil.Process, folder: Path) -> bool:
    try:
        return Path(process.cwd()) == folder
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def test_no_process_outlives_the_run(run: Run) -> None:
    """vLLM's engines and Ray's workers carry no path in their titles, but they work where the run was started."""
    left = [process for process in psutil.process_iter(["pid", "cmdline"]) if works_in(process, run.folder)]
    _, alive = psutil.wait_procs(left, timeout=30)  # Ray's workers notice a moment later that their driver has gone
    assert [process.info for process in alive] == []


@pytest.fixture(scope="module")
def evaluated(run: Run) -> Path:
    """Folder of an evaluation of the run's last checkpoint, by its judge, on the animals."""
    data = run.data / "test.parquet"
    command = [sys.executable, "-m", "speciarl", "evaluate", "preset=laptop", f"out={run.folder / 'evaluated'}"]
    settings = [f"models.after.checkpoint={run.folder}", f"datasets.animals.file={data}"]
    without = ["~models.before", "~models.before-best-of-16", "~models.after-best-of-16"]
    without += ["~datasets.food", "~datasets.travel", "~datasets.objects"]
    printed = finish([*command, *settings, *without], run.folder, COLUMNS="200")
    assert "report.html" in printed
    return run.folder / "evaluated"


def test_the_evaluation_of_the_checkpoint_is_the_validation_of_the_run(run: Run, evaluated: Path) -> None:
    """The converted weights answer as the trained ones did, to the letter, and the judge says the same of it."""
    validated = {answer["sample_id"]: answer for answer in answers(run, STEPS)}
    predicted = pq.read_table(evaluated / "predictions" / "after" / "animals" / "as_built.parquet").to_pylist()
    verdicts = pq.read_table(evaluated / "verdicts" / "laptop" / "after" / "animals" / "as_built.parquet").to_pylist()
    compared = [
        (one["text"], Outcome(verdict["outcome"]).key, validated[one["sample_id"]])
        for one, verdict in zip(predicted, verdicts, strict=True)
        if one["sample_id"] in validated
    ]
    assert len(compared) > 50
    assert [text for text, _, _ in compared] == [answer["output"] for _, _, answer in compared]
    assert [outcome for _, outcome, _ in compared] == [answer["category"] for _, _, answer in compared]


def test_the_evaluation_reports(evaluated: Path) -> None:
    [cell] = load(evaluated / "results.json").cells
    assert (cell.questions, cell.answers, cell.classes, cell.unscored) == (152, 152, 152, {})
    assert cell.metrics["correctness"].low is not None
    page = (evaluated / "report.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in html.unescape(page)
    assert {file.suffix for file in evaluated.glob("report.*")} == {".html", ".md", ".csv", ".parquet"}


def test_a_finished_run_is_only_reported_again(run: Run) -> None:
    command = [sys.executable, str(DEMO), "--out", str(run.folder), "--data", str(run.data), "--steps", str(STEPS)]
    assert "holds a finished run" in finish(command, run.folder, COLUMNS="200")
    assert sorted(path.name for path in (run.folder / "metrics").iterdir()) == ["000.jsonl"]
