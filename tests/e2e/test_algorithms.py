"""Every algorithm in two real steps. What tells it from the others is computed again from what was stored with each
trajectory and from the tensors that reached the loss in the actor, with the papers' constants written out here."""

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import loss_calls
import pytest
from grpo_sweep import GrpoSweep
from laptop_run import IMAGES, ROLLOUTS, STEPS, LaptopRun, train
from loss_calls import LossCall
from loss_spy import FOLDER

from speciarl.category import Category
from speciarl.reward import Member, Unparsable, load
from speciarl.reward.noise import LADDER, Noise, RolloutIdentity
from speciarl.verdict import Source, Verdict

pytestmark = pytest.mark.timeout(1800)  # the sweep's two runs, two minutes each on an idle machine

LONGEST = 11
"""Tokens. Answers of this policy have 8 to 10 and sometimes more: the last quarter of this limit begins after 8.25."""

MOVING = ("actor_rollout_ref.actor.optim.lr=1e-2", "actor_rollout_ref.actor.optim.lr_warmup_steps=0")
"""A rate that spoils the policy, so that the second update of a step meets ratios far from 1."""
TWO_UPDATES = (
    f"actor_rollout_ref.actor.ppo_mini_batch_size={IMAGES // 2}",
    f"actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu={IMAGES * ROLLOUTS // 2}",
)

Train = Callable[..., LaptopRun]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, laptop_data: Path) -> Train:
    def start(algorithm: str, *overrides: str) -> LaptopRun:
        folder = tmp_path_factory.mktemp(algorithm)
        return train(
            folder, laptop_data, f"recipe/algorithm={algorithm}", "actor_rollout_ref.model.external_lib=loss_spy",
            *overrides, modules=[Path(__file__).parent], variables={FOLDER: str(folder / "loss")},
        )  # fmt: skip

    return start


@pytest.fixture(scope="module")
def grpo(grpo_sweep: GrpoSweep) -> LaptopRun:
    return grpo_sweep.run("dynamic")


@pytest.fixture(scope="module")
def dr_grpo(run: Train) -> LaptopRun:
    return run("dr_grpo")


@pytest.fixture(scope="module")
def dapo(run: Train) -> LaptopRun:
    return run("dapo", f"data.max_response_length={LONGEST}", *MOVING, *TWO_UPDATES)


@pytest.fixture(scope="module")
def dapo_filtered(run: Train) -> LaptopRun:
    return run(
        "dapo_filtered", f"data.max_response_length={LONGEST}", "recipe/reward=binary"
    )  # few groups have a signal


@pytest.fixture(scope="module")
def gspo(run: Train) -> LaptopRun:
    return run("gspo", *MOVING, *TWO_UPDATES, "speciarl.reward.noise.probability=0.25")


def calls(run: LaptopRun) -> list[LossCall]:
    found = loss_calls.read(run.folder / "loss")
    assert found
    return found


def groups(run: LaptopRun) -> list[list[dict[str, Any]]]:
    """Of both steps; every one whole."""
    assert sorted(run.metrics) == list(range(1, STEPS + 1))
    found = [rows for step in run.metrics for rows in run.groups(step).values()]
    assert [len(rows) for rows in found] == [ROLLOUTS] * IMAGES * STEPS
    for rows in found:
        assert len({row["sample_id"] for row in rows}) == 1
    return found


def advantages(rows: list[dict[str, Any]], by_deviation: bool) -> list[float]:
    scores = [row["score"] for row in rows]
    scale = statistics.stdev(scores) + 1e-6 if by_deviation else 1.0
    return [(score - statistics.mean(scores)) / scale for score in scores]


def assert_advantages(run: LaptopRun, by_deviation: bool) -> None:
    """As computed, and not as the other way of scaling would have it."""
    differing = 0
    for rows in groups(run):
        stored = [row["advantage"] for row in rows]
        assert stored == pytest.approx(advantages(rows, by_deviation), abs=1e-4)
        differing += stored != pytest.approx(advantages(rows, not by_deviation), abs=1e-2)
    assert differing


def test_grpo_scales_by_the_deviation_of_the_group(grpo: LaptopRun) -> None:
    assert_advantages(grpo, by_deviation=True)


def test_grpos_loss_is_the_mean_over_tokens_and_it_has_a_kl_term(grpo: LaptopRun, grpo_sweep: GrpoSweep) -> None:
    found = loss_calls.read(grpo_sweep.losses)
    assert len(found) == 2 * STEPS  # of two runs
    for call in found:
        assert call.mode == "vanilla"
        assert call.loss == pytest.approx(
            loss_calls.token_mean(call, loss_calls.clipped(call, call.ratio, 0.2, 0.2, 3.0)), abs=1e-5
        )
    for step, metrics in grpo.metrics.items():
        assert metrics["actor/kl_coef"] == 0.01, step
    assert grpo.metrics[STEPS]["actor/kl_loss"] > 0  # the policy has left the reference


def test_dr_grpo_does_not_scale_by_the_deviation(dr_grpo: LaptopRun) -> None:
    assert_advantages(dr_grpo, by_deviation=False)


def test_dr_grpos_loss_is_divided_by_a_constant_and_has_no_kl_term(dr_grpo: LaptopRun) -> None:
    for call in calls(dr_grpo):
        losses = loss_calls.clipped(call, call.ratio, 0.2, 0.2, 3.0)
        assert call.loss == pytest.approx(loss_calls.constant_norm(call, losses, constant=24), abs=1e-6)
        assert call.response_mask.shape[1] < 24  # so the constant is not the longest response of the batch
        assert call.loss != pytest.approx(loss_calls.token_mean(call, losses), abs=1e-6)
    assert not [name for metrics in dr_grpo.metrics.values() for name in metrics if "kl_loss" in name]


def test_dapos_clip_bounds_reach_the_loss(dapo: LaptopRun) -> None:
    found = calls(dapo)
    assert len(found) == 2 * STEPS

    def loss(call: LossCall, low: float, high: float, dual: float) -> float:
        return loss_calls.token_mean(call, loss_calls.clipped(call, call.ratio, low, high, dual))

    for call in found:
        assert call.mode == "vanilla"
        assert call.loss == pytest.approx(loss(call, 0.2, 0.28, 10.0), rel=1e-3, abs=1e-5)
    for other in ((0.28, 0.28, 10.0), (0.2, 0.2, 10.0), (0.2, 0.28, 3.0)):  # each bound has made a difference
        assert [call for call in found if call.loss != pytest.approx(loss(call, *other), rel=2e-3, abs=1e-4)], other
    assert not [name for metrics in dapo.metrics.values() for name in metrics if "kl_loss" in name]


def penalty(tokens: int) -> float:
    """DAPO's, for a quarter of the limit as buffer."""
    buffer = LONGEST / 4
    return -max(0.0, tokens - (LONGEST - buffer)) / buffer


def test_long_answers_pay_on_top_of_the_groups_reward(dapo: LaptopRun) -> None:
    rows = [row for rows in groups(dapo) for row in rows]
    for row in rows:
        assert row["overlong_penalty"] == pytest.approx(penalty(row["response_tokens"]))
        assert row["score"] == pytest.approx(row["group_reward"] + row["overlong_penalty"], abs=1e-6)
    assert {row["group_reward"] for row in rows} <= {-1, 0, 1}
    assert min(row["overlong_penalty"] for row in rows) < 0
    assert max(row["overlong_penalty"] for row in rows) == 0
    for step, metrics in dapo.metrics.items():
        paid = statistics.mean(row["overlong_penalty"] for row in dapo.trajectories(step))
        assert metrics["speciarl/overlong_penalty"] == pytest.approx(paid)


def test_the_advantage_includes_the_penalty(dapo: LaptopRun) -> None:
    assert_advantages(dapo, by_deviation=True)


def test_groups_without_a_signal_are_replaced_by_others(dapo_filtered: LaptopRun) -> None:
    for rows in groups(dapo_filtered):  # as many as without filtering
        assert len({row["group_reward"] for row in rows}) > 1
    for metrics in dapo_filtered.metrics.values():
        assert metrics["training/filter_groups/evicted_samples"] > 0


def member(category: str) -> Member:
    return Unparsable() if category == "unparsable" else Verdict(Category[category.upper()], None, Source.TAXONOMY)


def test_filtering_looks_at_the_reward_before_the_penalty(dapo: LaptopRun, dapo_filtered: LaptopRun) -> None:
    """Both runs begin with the same prompts and, by their seeds, the same answers to them: what the first stored tells
    which groups the second had to throw away."""
    signal, told_apart = {}, {}
    for prompt, rows in dapo.groups(1).items():
        earned = load("binary")([member(row["category"]) for row in rows])
        signal[prompt] = len(set(earned)) > 1
        scores = {
            mine + penalty(row["response_tokens"]) for mine, row in zip(earned, rows, strict=True) if mine is not None
        }
        told_apart[prompt] = len(scores) > 1
    by_penalty_alone = {prompt for prompt in signal if told_apart[prompt] and not signal[prompt]}
    assert by_penalty_alone
    assert not by_penalty_alone & set(dapo_filtered.groups(1))
    evicted = dapo_filtered.metrics[1]["training/filter_groups/evicted_samples"]
    assert evicted >= sum(not has_signal for has_signal in signal.values())


def test_gspos_loss_has_one_ratio_per_response(gspo: LaptopRun) -> None:
    found = calls(gspo)
    assert {call.mode for call in found} == {"gspo"}
    for call in found:
        losses = loss_calls.clipped(call, call.sequence_ratio, 3e-4, 4e-4, None)
        assert call.loss == pytest.approx(loss_calls.sequence_mean(call, losses), rel=1e-3, abs=1e-5)

    def by_token(call: LossCall) -> float:
        return loss_calls.sequence_mean(call, loss_calls.clipped(call, call.ratio, 3e-4, 4e-4, None))

    assert [call for call in found if call.loss != pytest.approx(by_token(call), rel=1e-2, abs=1e-4)]
    assert max(metrics["actor/pg_clipfrac"] for metrics in gspo.metrics.values()) > 0


def test_noise_reaches_the_reward_and_not_the_record(gspo: LaptopRun) -> None:
    noise, moved = Noise(probability=0.25, seed=42), 0
    for step in gspo.metrics:
        for rows in gspo.groups(step).values():
            seen = []
            for session, row in enumerate(rows):
                if row["category"] == "unparsable":
                    assert row["score"] == -1
                    continue
                true = Category[row["category"].upper()]
                identity = RolloutIdentity(f"{row['data_source']}/{row['sample_id']}", step, session)
                expected = noise.apply(Verdict(true, None, Source.TAXONOMY), identity)
                assert isinstance(expected, Verdict)
                assert row["seen_category"] == expected.category.name.lower()
                if expected.category is not true:
                    moved += 1
                    assert abs(LADDER.index(expected.category) - LADDER.index(min(true, Category.SPECIFIC))) == 1
                seen.append((expected, row["group_reward"]))
            assert [earned for _, earned in seen] == load("dynamic")([verdict for verdict, _ in seen])
        metrics, rows = gspo.metrics[step], gspo.trajectories(step)
        wrong = sum(row["category"] == "wrong" for row in rows) / len(rows)
        assert metrics["speciarl/rate/wrong"] == pytest.approx(wrong)  # of true verdicts
        changed = sum(row["category"] != row["seen_category"] for row in rows) / len(rows)
        assert metrics["speciarl/noise_rate"] == pytest.approx(changed)
    assert 2 <= moved <= IMAGES * ROLLOUTS * STEPS / 2
