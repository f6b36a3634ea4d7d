"""A sweep of two runs in one process, as in examples/sweep: each on its own, the second not disturbed by the first.

The loss in the actor's process of whole runs is what one process shows of it (tests/integration/test_losses.py)."""

import os
import subprocess
import sys
from typing import Any

import loss_calls
import pytest
from grpo_sweep import EXAMPLE, GrpoSweep
from laptop_run import STEPS
from stored_algorithms import assert_advantages

pytestmark = pytest.mark.timeout(1800)  # two runs, two minutes each on an idle machine


def earned(sweep: GrpoSweep, reward: str) -> dict[tuple[str, str], tuple[str, float, str]]:
    """Category, score and reference of every rollout of the first step, by image and session."""
    rows: list[dict[str, Any]] = sweep.run(reward).trajectories(1)
    return {
        (row["sample_id"], row["uid"].split("_")[1]): (row["category"], row["score"], row["reference"]) for row in rows
    }


def test_static_against_dynamic(grpo_sweep: GrpoSweep) -> None:
    static, dynamic = earned(grpo_sweep, "binary"), earned(grpo_sweep, "dynamic")
    assert static.keys() == dynamic.keys()  # the same images and, with one seed, the same answers
    for rollout, (category, score, reference) in static.items():
        assert dynamic[rollout][0] == category
        assert score == (category in ("specific", "more_specific"))
        assert reference == dynamic[rollout][2]
    assert sum(score for _, score, _ in dynamic.values()) > sum(score for _, score, _ in static.values())


def test_the_table_has_both(grpo_sweep: GrpoSweep) -> None:
    table = subprocess.run(
        [sys.executable, str(EXAMPLE / "compare.py"), "speciarl-runs"],
        cwd=grpo_sweep.folder, capture_output=True, text=True, timeout=120, env={**os.environ, "COLUMNS": "120"},
    )  # fmt: skip
    assert table.returncode == 0, table.stdout + table.stderr
    assert "grpo-binary" in table.stdout
    assert "grpo-dynamic" in table.stdout


def test_grpo_scales_by_the_deviation_of_the_group(grpo_sweep: GrpoSweep) -> None:
    assert_advantages(grpo_sweep.run("dynamic"), by_deviation=True)


def test_grpos_loss_is_the_mean_over_tokens_and_it_has_a_kl_term(grpo_sweep: GrpoSweep) -> None:
    found = loss_calls.read(grpo_sweep.losses)
    assert len(found) == 2 * STEPS  # of two runs
    for call in found:
        assert call.mode == "vanilla"
        assert call.loss == pytest.approx(
            loss_calls.token_mean(call, loss_calls.clipped(call, call.ratio, 0.2, 0.2, 3.0)), abs=1e-5
        )
    metrics = grpo_sweep.run("dynamic").metrics
    for step in metrics:
        assert metrics[step]["actor/kl_coef"] == 0.01, step
    assert metrics[STEPS]["actor/kl_loss"] > 0  # the policy has left the reference
