"""``recipe/mode=separate_async`` at laptop scale: our worker, verdicts and metrics, and the weights really arrive. With
them verdict noise, and a reward of the user's own."""

import sys
from pathlib import Path

import pytest
import torch
from brief_optimiser import UPDATES
from laptop_run import IMAGES, ROLLOUTS, LaptopRun, train
from stored_algorithms import (
    assert_a_replay_equals_what_was_logged,
    assert_noise_reaches_the_reward_and_not_the_record,
)

from speciarl import reward
from speciarl.category import Category
from speciarl.cpu import stack

pytestmark = [
    pytest.mark.timeout(1200),  # a run takes two minutes on an idle machine
    pytest.mark.skipif(
        not stack.active() and torch.cuda.device_count() < 2, reason="a GPU for the trainer and one for rollouts"
    ),
]

OWN_REWARD = Path(__file__).parents[2] / "examples" / "own_reward"
ABSTAINING = 0.2
STEPS = 3
NOISE = 0.25
VALIDATED = 16
MICRO_BATCHES = (
    "actor.ppo_micro_batch_size_per_gpu",
    "ref.log_prob_micro_batch_size_per_gpu",
    "rollout.log_prob_micro_batch_size_per_gpu",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, laptop_data: Path) -> LaptopRun:
    """As the paper's main run would: a batch ahead, several updates a batch, validation in between. It trains an
    adapter, in the first step alone and by so much that a rollout server without it would disagree with the trainer:
    servers that are one step behind have in the third step what the trainer has."""
    return train(
        tmp_path_factory.mktemp("separate"), laptop_data, "recipe/mode=separate_async",
        f"trainer.total_training_steps={STEPS}", f"actor_rollout_ref.actor.ppo_mini_batch_size={IMAGES // UPDATES}",
        *(f"actor_rollout_ref.{part}={IMAGES * ROLLOUTS // UPDATES}" for part in MICRO_BATCHES),
        "trainer.test_freq=2", f"data.val_max_samples={VALIDATED}",
        "actor_rollout_ref.model.lora_rank=8", "actor_rollout_ref.model.exclude_modules=.*visual.*",
        "actor_rollout_ref.actor.optim.lr=2e-2", "actor_rollout_ref.actor.optim.lr_warmup_steps=0",
        "actor_rollout_ref.actor.optim.optimizer_impl=brief_optimiser",
        "actor_rollout_ref.actor.optim.optimizer=BriefAdamW",
        f"speciarl.reward.noise.probability={NOISE}", "speciarl.reward.name=own_reward:rewards",
        f"+speciarl.reward.params.abstaining={ABSTAINING}", modules=[OWN_REWARD, Path(__file__).parent],
    )  # fmt: skip


def test_every_batch_is_whole_and_judged(run: LaptopRun) -> None:
    assert sorted(run.metrics) == list(range(1, STEPS + 1))
    for step, metrics in run.metrics.items():
        groups = run.groups(step)
        assert [len(rows) for rows in groups.values()] == [ROLLOUTS] * IMAGES
        for rows in groups.values():
            assert len({row["reference"] for row in rows}) == 1
        assert metrics["speciarl/unscorable_rate"] == 0
        assert metrics["speciarl/failed_rollouts"] == 0
        assert metrics["actor/grad_norm"] > 0


def test_noise_reaches_the_reward_and_not_the_record(run: LaptopRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """All rewards are computed again, by the names of the rollouts, from the verdicts as seen."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(OWN_REWARD)])
    own = reward.load("own_reward:rewards", {"abstaining": ABSTAINING})
    assert_noise_reaches_the_reward_and_not_the_record(run, NOISE, own)


def test_a_replay_equals_what_was_logged(run: LaptopRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of prompts that were fetched in an earlier step than learnt from, which have that step's noise."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(OWN_REWARD)])
    assert any(row["sampled_step"] < step for step in run.metrics for row in run.trajectories(step))
    assert_a_replay_equals_what_was_logged(run, f"own_reward:rewards(abstaining={ABSTAINING})")


def test_a_users_own_reward_by_import_path(run: LaptopRun) -> None:
    for step in run.metrics:
        for rows in run.groups(step).values():
            scored = [Category[row["seen_category"].upper()] for row in rows if row["category"] != "unparsable"]
            for row in rows:
                if row["category"] == "unparsable":
                    expected = -1.0
                elif row["seen_category"] in ("wrong", "abstain"):
                    expected = {"wrong": 0.0, "abstain": ABSTAINING}[row["seen_category"]]
                else:
                    expected = sum(Category[row["seen_category"].upper()] >= other for other in scored) / len(scored)
                assert row["score"] == pytest.approx(expected)


def test_servers_work_ahead_and_validate(run: LaptopRun) -> None:
    staleness = [run.metrics[step]["training/off_policy/trajectory_staleness/max"] for step in (1, 2, 3)]
    assert staleness == [0, 1, 1]
    for step, metrics in run.metrics.items():
        assert ("val-core/mean/hm" in metrics) == (step in (2, STEPS))


def test_an_adapter_reaches_the_rollout_servers(run: LaptopRun) -> None:
    """In the second step they still have the base model, from which the trainer has moved away; in the third they have
    moved with it."""
    second, last = run.metrics[2], run.metrics[STEPS]
    moved = last["actor/kl_loss"]  # from the base model, which is what the servers began with
    assert moved > 1e-3
    assert second["rollout_corr/k3_kl"] > moved / 100
    assert last["rollout_corr/k3_kl"] < moved / 1000  # of the servers from the trainer; merged weights are rounded
