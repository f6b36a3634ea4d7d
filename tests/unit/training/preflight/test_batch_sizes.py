"""What the preflight check says about sizes of batches, on composed recipes."""

import copy
from typing import Any

import pytest
from composed_run import composed
from omegaconf import OmegaConf

from speciarl.errors import ConfigError
from speciarl.training.preflight.batch_sizes import TOKEN_BUDGETS, check_batch_sizes


def check(mode: str = "sync", recipe: str = "speciarl", **sizes: Any) -> None:
    """`sizes`: keys with ``__`` for a dot. The recipe: 256 images, mini-batches of 128, 10 rollouts, 4 devices; so 320
    rollouts an update and device, 640 a step. Its micro-batches are by tokens."""
    config = copy.deepcopy(composed(f"+recipe={recipe}", f"recipe/mode={mode}"))
    for key, value in sizes.items():
        OmegaConf.update(config, key.replace("__", "."), value)
    check_batch_sizes(config)


def check_by_rollouts(mode: str = "sync", **sizes: Any) -> None:
    """The same, with micro-batches of so many rollouts."""
    check(mode, actor_rollout_ref__actor__use_dynamic_bsz=False, **sizes)


MICRO, LOG_PROB, REF_LOG_PROB = (
    "actor_rollout_ref__actor__ppo_micro_batch_size_per_gpu",
    "actor_rollout_ref__rollout__log_prob_micro_batch_size_per_gpu",
    "actor_rollout_ref__ref__log_prob_micro_batch_size_per_gpu",
)


@pytest.mark.parametrize("recipe", ["speciarl", "[speciarl,laptop]", "[speciarl,one_gpu]"])
@pytest.mark.parametrize("mode", ["sync", "sync_overlap", "colocate_async", "separate_async"])
def test_the_recipes_fit(mode: str, recipe: str) -> None:
    check(mode, recipe)


@pytest.mark.parametrize(
    ("key", "size", "share", "divisor"),
    [(MICRO, 48, 320, 40), (MICRO, 640, 320, 320), (LOG_PROB, 48, 640, 40), (REF_LOG_PROB, 999, 640, 640)],
)
def test_a_micro_batch_that_does_not_fit_is_named_with_one_that_does(
    key: str, size: int, share: int, divisor: int
) -> None:
    name = key.replace("__", r"\.")
    with pytest.raises(ConfigError, match=rf"^{name}={size} does not divide the {share} rollouts .* e\.g\. {divisor}$"):
        check_by_rollouts(**{key: size})
    check_by_rollouts(**{key: divisor})


def test_separate_async_takes_one_mini_batch_at_a_time() -> None:
    check_by_rollouts(**{LOG_PROB: 640})
    with pytest.raises(ConfigError, match="log_prob_micro_batch_size_per_gpu=640 does not divide the 320 rollouts"):
        check_by_rollouts("separate_async", **{LOG_PROB: 640})


def test_a_batch_that_is_no_whole_number_of_mini_batches_is_filled_up_in_other_modes() -> None:
    odd = {"data__train_batch_size": 300}
    check_by_rollouts(**odd, **{LOG_PROB: 960})  # three mini-batches
    with pytest.raises(ConfigError, match=r"train_batch_size=300 in separate_async .*ppo_mini_batch_size=128 times"):
        check("separate_async", **odd)
    with pytest.raises(ConfigError, match=r"train_batch_size=256 in separate_async .*ppo_mini_batch_size=128 times"):
        check("separate_async", trainer__v1__separate_async__parameter_sync_step=3)


def test_rollouts_must_be_shared_out_evenly() -> None:
    with pytest.raises(ConfigError, match=r"126 x .*n=5 = 630 rollouts cannot be shared out evenly among 4 devices"):
        check(actor_rollout_ref__actor__ppo_mini_batch_size=126, actor_rollout_ref__rollout__n=5)


def test_devices_that_share_sequences_count_once() -> None:
    check_by_rollouts(actor_rollout_ref__actor__ulysses_sequence_parallel_size=2, **{MICRO: 640})


def test_sizes_that_are_not_used_are_not_checked() -> None:
    check(**{MICRO: 48, LOG_PROB: 48, REF_LOG_PROB: 48})
    check_by_rollouts(actor_rollout_ref__actor__use_kl_loss=False, **{REF_LOG_PROB: 48})
    check_by_rollouts(actor_rollout_ref__actor__strategy="megatron", **{MICRO: 48})


@pytest.mark.parametrize("key", TOKEN_BUDGETS)
def test_a_budget_of_tokens_must_hold_the_longest_sample(key: str) -> None:
    name, path = key.replace(".", r"\."), key.replace(".", "__")
    with pytest.raises(ConfigError, match=rf"^{name}=4095 has no room .*_length=2048 \+ .*_length=2048 tokens"):
        check(**{path: 4095})
    check(**{path: 4096})
    check(**{path: 2048}, actor_rollout_ref__actor__ulysses_sequence_parallel_size=2)
    check_by_rollouts(**{path: 4095})


def test_the_actor_divides_its_batches_in_one_way() -> None:
    with pytest.raises(
        ConfigError, match=r"rollout\.log_prob_use_dynamic_bsz=False .*actor\.use_dynamic_bsz is \(True\)"
    ):
        check(actor_rollout_ref__rollout__log_prob_use_dynamic_bsz=False)
