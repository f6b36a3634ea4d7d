"""What the preflight check says about trainer modes, on composed recipes."""

import pytest
import verl  # noqa: F401  (loads our plug-in: search path and resolvers)
from hydra import compose, initialize_config_module

from speciarl.errors import ConfigError
from speciarl.training.preflight import check_mode

UNMERGED = "actor_rollout_ref.model.lora.merge=false"


def check(*overrides: str) -> None:
    with initialize_config_module("verl.trainer.config", version_base=None):
        check_mode(compose("ppo_trainer", overrides=["+recipe=speciarl", *overrides]))


@pytest.mark.parametrize("mode", ["sync", "colocate_async", "separate_async"])
def test_the_recipes_modes_are_fit_for_adapters(mode: str) -> None:
    check(f"recipe/mode={mode}")


@pytest.mark.parametrize(
    "adapter",
    [
        "actor_rollout_ref.model.lora_rank=8",
        "actor_rollout_ref.model.lora.rank=8",
        "actor_rollout_ref.model.lora_adapter_path=adapter",
    ],
)
@pytest.mark.parametrize("mode", ["recipe/mode=separate_async", "trainer.v1.trainer_mode=separate_async"])
def test_an_adapter_that_would_not_reach_the_rollout_servers_is_refused(mode: str, adapter: str) -> None:
    with pytest.raises(ConfigError, match="adapter would not reach"):
        check(mode, UNMERGED, "actor_rollout_ref.model.lora_rank=0", adapter)


def test_other_modes_and_full_training_need_no_merging() -> None:
    check("recipe/mode=colocate_async", UNMERGED)
    check("recipe/mode=separate_async", UNMERGED, "actor_rollout_ref.model.lora_rank=0")


def test_weights_are_sent_once_per_training_batch() -> None:
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer", overrides=["+recipe=speciarl", "recipe/mode=separate_async"])
    assert config.trainer.v1.separate_async.parameter_sync_step == 2  # batches of 256, updates of 128
