"""Every algorithm in two steps of veRL's own trainer and engine, in this process, on a stored batch. What tells it from
the others is computed again from what was stored with each trajectory and from the tensors that reached the loss, with
the papers' constants written out here."""

from collections.abc import Callable, Iterator

import loss_calls
import one_process
import pytest
from laptop_run import IMAGES, ROLLOUTS, STEPS
from loss_calls import LossCall
from one_process import OneProcessRun
from stored_algorithms import (
    assert_a_replay_equals_what_was_logged,
    assert_advantages,
    assert_filtering_looks_before_the_penalty,
    assert_groups_without_a_signal_are_replaced,
    assert_long_answers_pay,
    assert_noise_reaches_the_reward_and_not_the_record,
    groups,
)
from told_answers import GROUPS

from data_prep.emoji.concepts import TRAIN_DOMAIN, load_concepts
from data_prep.emoji.dataset import build
from speciarl.reward import load

CONCEPTS = 40
"""More than filtering asks for in two steps."""
LONGEST = 11
"""Tokens, where long answers pay: the last quarter of this limit begins after 8.25."""
SHORT = f"data.max_response_length={LONGEST}"

WARM = "actor_rollout_ref.actor.optim.lr_warmup_steps=0"  # else the first step would leave the policy where it is
MOVING = ("actor_rollout_ref.actor.optim.lr=2e-3", WARM)
"""A rate that spoils the policy, so that the second update of a step meets ratios far from 1."""
TWO_UPDATES = (
    f"actor_rollout_ref.actor.ppo_mini_batch_size={IMAGES // 2}",
    f"actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu={IMAGES * ROLLOUTS // 2}",
)

Train = Callable[..., OneProcessRun]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Train]:
    folder = tmp_path_factory.mktemp("losses")
    concepts = [concept for concept in load_concepts() if concept.domain == TRAIN_DOMAIN][:CONCEPTS]
    build(concepts, folder / "emoji", 0, 1, lambda _: None)

    def start(algorithm: str, *overrides: str) -> OneProcessRun:
        return one_process.train(folder / algorithm, folder / "emoji", f"recipe/algorithm={algorithm}", *overrides)

    with one_process.one_process(folder):
        yield start


@pytest.fixture(scope="module")
def grpo(run: Train) -> OneProcessRun:
    return run("grpo", *MOVING, *TWO_UPDATES)


@pytest.fixture(scope="module")
def dr_grpo(run: Train) -> OneProcessRun:
    return run("dr_grpo", *MOVING, *TWO_UPDATES)


@pytest.fixture(scope="module")
def dapo(run: Train) -> OneProcessRun:
    return run("dapo", SHORT, *MOVING, *TWO_UPDATES)


@pytest.fixture(scope="module")
def dapo_filtered(run: Train) -> OneProcessRun:
    return run("dapo_filtered", SHORT, "recipe/reward=binary", *MOVING, *TWO_UPDATES)


@pytest.fixture(scope="module")
def gspo(run: Train) -> OneProcessRun:
    return run("gspo", *MOVING, *TWO_UPDATES, "speciarl.reward.noise.probability=0.25")


def vanilla(call: LossCall, low: float, high: float, dual: float) -> float:
    return loss_calls.token_mean(call, loss_calls.clipped(call, call.ratio, low, high, dual))


def sequence_mean(call: LossCall, low: float, high: float, dual: float) -> float:
    return loss_calls.sequence_mean(call, loss_calls.clipped(call, call.ratio, low, high, dual))


def assert_loss(found: list[LossCall], mode: str, ours: Callable[[LossCall], float]) -> None:
    """That of every update."""
    assert len(found) == 2 * STEPS
    for call in found:
        assert call.mode == mode
        assert call.loss == pytest.approx(ours(call), rel=1e-6, abs=1e-6)


def assert_not(found: list[LossCall], other: Callable[[LossCall], float], what: object, apart: float = 1e-3) -> None:
    """What it is not has made a difference."""
    assert [call for call in found if call.loss != pytest.approx(other(call), rel=apart, abs=apart)], what


def test_the_batch_is_the_stored_one(grpo: OneProcessRun) -> None:
    first = [tuple(row["category"] for row in rows) for rows in grpo.run.groups(1).values()]
    categories = {
        "exact": "specific", "narrow": "less_specific", "broad": "generic", "none": "abstain", "untagged": "unparsable",
    }  # fmt: skip
    said = [tuple(kind.removesuffix(" at length") for kind in kinds) for kinds in GROUPS]
    assert sorted(first) == sorted(tuple(categories.get(kind, kind) for kind in kinds) for kinds in said)


def test_grpo_scales_by_the_deviation_of_the_group(grpo: OneProcessRun) -> None:
    assert_advantages(grpo.run, by_deviation=True)


def test_grpos_loss_is_the_mean_over_tokens_and_it_has_a_kl_term(grpo: OneProcessRun) -> None:
    assert_loss(grpo.losses, "vanilla", lambda call: vanilla(call, 0.2, 0.2, 3.0))
    for bounds in ((0.28, 0.2, 3.0), (0.2, 0.28, 3.0), (0.2, 0.2, 10.0)):
        assert_not(grpo.losses, lambda call, bounds=bounds: vanilla(call, *bounds), bounds)
    assert_not(grpo.losses, lambda call: sequence_mean(call, 0.2, 0.2, 3.0), "by response")
    for step, metrics in grpo.run.metrics.items():
        assert metrics["actor/kl_coef"] == 0.01, step
        assert metrics["actor/loss"] == pytest.approx(metrics["actor/pg_loss"] + 0.01 * metrics["actor/kl_loss"])
    assert grpo.run.metrics[STEPS]["actor/kl_loss"] > 0  # the policy has left the reference


def test_dr_grpo_does_not_scale_by_the_deviation(dr_grpo: OneProcessRun) -> None:
    assert_advantages(dr_grpo.run, by_deviation=False)


def test_dr_grpos_loss_is_divided_by_a_constant_and_has_no_kl_term(dr_grpo: OneProcessRun) -> None:
    def by_constant(call: LossCall) -> float:
        losses = loss_calls.clipped(call, call.ratio, 0.2, 0.2, 3.0)
        return loss_calls.constant_norm(call, losses, constant=24)

    assert_loss(dr_grpo.losses, "vanilla", by_constant)
    for call in dr_grpo.losses:
        assert call.loss == pytest.approx(by_constant(call), abs=1e-6)
        assert call.response_mask.shape[1] < 24  # so the constant is not the longest response of the batch
        assert call.loss != pytest.approx(vanilla(call, 0.2, 0.2, 3.0), abs=1e-6)
    assert not [name for metrics in dr_grpo.run.metrics.values() for name in metrics if "kl_loss" in name]


def test_dapos_clip_bounds_reach_the_loss(dapo: OneProcessRun) -> None:
    assert_loss(dapo.losses, "vanilla", lambda call: vanilla(call, 0.2, 0.28, 10.0))
    for bounds in ((0.28, 0.28, 10.0), (0.2, 0.2, 10.0), (0.2, 0.28, 3.0)):  # each bound has made a difference
        assert_not(dapo.losses, lambda call, bounds=bounds: vanilla(call, *bounds), bounds)
    assert not [name for metrics in dapo.run.metrics.values() for name in metrics if "kl_loss" in name]


def test_long_answers_pay_on_top_of_the_groups_reward(dapo: OneProcessRun) -> None:
    assert_long_answers_pay(dapo.run, LONGEST)


def test_the_advantage_includes_the_penalty(dapo: OneProcessRun) -> None:
    assert_advantages(dapo.run, by_deviation=True)


def test_groups_without_a_signal_are_replaced_by_others(dapo_filtered: OneProcessRun) -> None:
    groups(dapo_filtered.run)  # as many as without filtering
    assert_groups_without_a_signal_are_replaced(dapo_filtered.run)


def test_filtering_looks_at_the_reward_before_the_penalty(dapo: OneProcessRun, dapo_filtered: OneProcessRun) -> None:
    assert_filtering_looks_before_the_penalty(dapo.run, dapo_filtered.run, LONGEST)


def test_filtered_dapo_has_dapos_loss(dapo_filtered: OneProcessRun) -> None:
    assert_loss(dapo_filtered.losses, "vanilla", lambda call: vanilla(call, 0.2, 0.28, 10.0))
    assert_long_answers_pay(dapo_filtered.run, LONGEST)
    assert_advantages(dapo_filtered.run, by_deviation=True)


def test_gspos_loss_has_one_ratio_per_response(gspo: OneProcessRun) -> None:
    def per_response(call: LossCall, low: float = 3e-4, high: float = 4e-4) -> float:
        return loss_calls.sequence_mean(call, loss_calls.clipped(call, call.sequence_ratio, low, high, None))

    def per_token(call: LossCall) -> float:
        return loss_calls.sequence_mean(call, loss_calls.clipped(call, call.ratio, 3e-4, 4e-4, None))

    assert_loss(gspo.losses, "gspo", per_response)
    assert_not(gspo.losses, per_token, "by token")
    for bounds in ((4e-4, 4e-4), (3e-4, 3e-4)):
        assert_not(gspo.losses, lambda call, bounds=bounds: per_response(call, *bounds), bounds, apart=3e-6)
    assert max(metrics["actor/pg_clipfrac"] for metrics in gspo.run.metrics.values()) > 0


def test_noise_reaches_the_reward_and_not_the_record(gspo: OneProcessRun) -> None:
    assert_noise_reaches_the_reward_and_not_the_record(gspo.run, 0.25, load("dynamic"))


def test_a_replay_equals_what_was_logged(
    dapo: OneProcessRun, dapo_filtered: OneProcessRun, dr_grpo: OneProcessRun, gspo: OneProcessRun
) -> None:
    assert_a_replay_equals_what_was_logged(dapo.run, "dynamic")  # with penalties
    assert_a_replay_equals_what_was_logged(dapo_filtered.run, "binary")
    assert_a_replay_equals_what_was_logged(dr_grpo.run, "dynamic", by_deviation=False)
    assert_a_replay_equals_what_was_logged(gspo.run, "dynamic")  # with noise
