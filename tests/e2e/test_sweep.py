"""A sweep of two runs in one process, as in examples/sweep: each on its own, the second not disturbed by the first."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from laptop_run import DEADLINE_S, STEPS, command

pytestmark = pytest.mark.timeout(1800)  # several runs, a minute each on an idle machine

SWEEP = Path(__file__).parents[2] / "examples" / "sweep"
CHOSEN_BY_THE_SWEEP = ("trainer.default_local_dir=", "trainer.logger=", "trainer.rollout_data_dir=", "hydra.run.dir=")


def test_static_against_dynamic(tmp_path: Path, laptop_data: Path) -> None:
    words = [word for word in command(tmp_path, laptop_data) if not word.startswith(CHOSEN_BY_THE_SWEEP)]
    words[3:3] = ["--config-dir", str(SWEEP)]  # options go before overrides
    words += [
        "+sweep=directories", "recipe/reward=binary,dynamic",
        f"trainer.test_freq={STEPS}", "data.val_max_samples=16",
        "trainer.rollout_data_dir=${trainer.default_local_dir}/rollouts",
    ]  # fmt: skip
    with (tmp_path / "log").open("wb") as log:
        done = subprocess.run(
            words, stdout=log, stderr=subprocess.STDOUT, cwd=tmp_path, env=dict(os.environ), timeout=2 * DEADLINE_S
        )
    assert done.returncode == 0, (tmp_path / "log").read_text(errors="replace")[-8000:]
    earned = {}
    for name in ("binary", "dynamic"):
        folder = tmp_path / "sweeps" / f"grpo-{name}"
        rows = [json.loads(line) for line in (folder / "rollouts" / "1.jsonl").read_text().splitlines()]
        earned[name] = {
            (row["sample_id"], row["uid"].split("_")[1]): (row["category"], row["score"], row["reference"])
            for row in rows
        }
    assert earned["binary"].keys() == earned["dynamic"].keys()  # the same images and, with one seed, the same answers
    for rollout, (category, score, reference) in earned["binary"].items():
        assert earned["dynamic"][rollout][0] == category
        assert score == (category in ("specific", "more_specific"))
        assert reference == earned["dynamic"][rollout][2]
    assert sum(score for _, score, _ in earned["dynamic"].values()) > sum(
        score for _, score, _ in earned["binary"].values()
    )
    table = subprocess.run(
        [words[0], str(SWEEP / "compare.py"), "speciarl-runs"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, env={**os.environ, "COLUMNS": "120"},
    )  # fmt: skip
    assert table.returncode == 0, table.stdout + table.stderr
    assert "grpo-binary" in table.stdout
    assert "grpo-dynamic" in table.stdout
