"""Batch-size check: how a batch divides into mini-batches, devices and micro-batches, by rollouts or by tokens.

veRL finds a misfit only on the workers, after models were loaded and a batch was generated, and its assertion names no
key.
"""

import math
from collections.abc import Iterator

from omegaconf import DictConfig, OmegaConf

from speciarl.errors import ConfigError

ACTOR = "actor_rollout_ref.actor"
ROLLOUT = "actor_rollout_ref.rollout"
TOKEN_BUDGETS = (
    f"{ACTOR}.ppo_max_token_len_per_gpu",
    f"{ROLLOUT}.log_prob_max_token_len_per_gpu",
    "actor_rollout_ref.ref.log_prob_max_token_len_per_gpu",
)


def check_batch_sizes(config: DictConfig) -> None:
    """Raise ConfigError for the first size that does not divide what it has to.

    All but the first check are for FSDP only: other engines share out devices in other ways.
    """
    actor, rollout, data = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout, config.data
    one_by_one = str(config.trainer.v1.trainer_mode).endswith("separate_async")
    updates = math.ceil(data.train_batch_size / actor.ppo_mini_batch_size)
    # In this order: the second may be an interpolation that cannot be resolved unless the first holds.
    if one_by_one and (
        data.train_batch_size % actor.ppo_mini_batch_size
        or updates != config.trainer.v1.separate_async.parameter_sync_step
    ):
        raise ConfigError(
            f"data.train_batch_size={data.train_batch_size} in separate_async mode must be "
            f"{ACTOR}.ppo_mini_batch_size={actor.ppo_mini_batch_size} times a whole number, which is "
            "trainer.v1.separate_async.parameter_sync_step (the recipe computes it, if you leave it out)"
        )
    if actor.strategy not in ("fsdp", "fsdp2"):
        return
    devices = config.trainer.nnodes * config.trainer.n_gpus_per_node
    shards = max(devices // actor.ulysses_sequence_parallel_size, 1)
    rollouts = actor.ppo_mini_batch_size * rollout.n
    if rollouts % shards:
        raise ConfigError(
            f"{ACTOR}.ppo_mini_batch_size={actor.ppo_mini_batch_size} x {ROLLOUT}.n={rollout.n} = {rollouts} rollouts "
            f"cannot be shared out evenly among {shards} devices; change one of them or trainer.n_gpus_per_node"
        )
    update = rollouts // shards
    step = update if one_by_one else update * updates  # what log-probabilities are computed for at once
    for key, size, share in _micro_batches(config, update, step):
        if size is not None and share % size:  # veRL itself names the key of a size that is missing
            raise ConfigError(
                f"{key}={size} does not divide the {share} rollouts that each of {shards} devices gets at once; give a "
                f"divisor, e.g. {_largest_divisor(share, size)}"
            )
    check_token_budgets(config)


def check_token_budgets(config: DictConfig) -> None:
    """Raise ConfigError for token-based micro-batches (`use_dynamic_bsz`) that cannot work.

    They must be on for both the update and the log-probabilities or for neither, and have room for the longest sample.
    """
    actor, rollout, data = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout, config.data
    if actor.use_dynamic_bsz != rollout.log_prob_use_dynamic_bsz:
        raise ConfigError(
            f"{ROLLOUT}.log_prob_use_dynamic_bsz={rollout.log_prob_use_dynamic_bsz} must be what "
            f"{ACTOR}.use_dynamic_bsz is ({actor.use_dynamic_bsz}); leave it out, and it follows"
        )
    if not actor.use_dynamic_bsz:
        return
    longest = data.max_prompt_length + data.max_response_length
    for key in TOKEN_BUDGETS:
        budget = OmegaConf.select(config, key)
        if budget * actor.ulysses_sequence_parallel_size < longest:
            raise ConfigError(
                f"{key}={budget} has no room for a sample of data.max_prompt_length={data.max_prompt_length} + "
                f"data.max_response_length={data.max_response_length} tokens; raise it, or lower those"
            )


def _micro_batches(config: DictConfig, update: int, step: int) -> Iterator[tuple[str, int | None, int]]:
    """Key, size, and number of rollouts to divide, of each micro-batch size that the run uses."""
    actor, ref, rollout = (config.actor_rollout_ref[part] for part in ("actor", "ref", "rollout"))
    if not actor.use_dynamic_bsz:
        yield f"{ACTOR}.ppo_micro_batch_size_per_gpu", actor.ppo_micro_batch_size_per_gpu, update
    if not rollout.log_prob_use_dynamic_bsz:
        yield f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu", rollout.log_prob_micro_batch_size_per_gpu, step
    if not ref.log_prob_use_dynamic_bsz and (actor.use_kl_loss or config.algorithm.use_kl_in_reward):
        yield "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu", ref.log_prob_micro_batch_size_per_gpu, step


def _largest_divisor(number: int, limit: int) -> int:
    return next(size for size in range(min(limit, number), 0, -1) if number % size == 0)
