"""What the preflight check says about trainer modes, on composed recipes."""

import copy
from typing import Any

import pytest
from composed_run import composed
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf

from speciarl.errors import ConfigError
from speciarl.training.preflight.checks import check_mode


def in_mode(mode: str) -> DictConfig:
    return copy.deepcopy(composed("+recipe=speciarl", f"recipe/mode={mode}"))


def check(mode: str, strategy: str = "fsdp", **model: Any) -> None:
    """`model`: keys of ``actor_rollout_ref.model``, with ``__`` for a dot."""
    config = in_mode(mode)
    config.actor_rollout_ref.actor.strategy = strategy
    for key, value in model.items():
        OmegaConf.update(config.actor_rollout_ref.model, key.replace("__", "."), value)
    check_mode(config)


@pytest.mark.parametrize("mode", ["sync", "sync_overlap", "colocate_async", "separate_async"])
def test_the_recipes_modes_are_fit_for_adapters(mode: str) -> None:
    check(mode)


@pytest.mark.parametrize("adapter", [{"lora_rank": 8}, {"lora__rank": 8}, {"lora_adapter_path": "adapter"}])
def test_an_adapter_that_would_not_reach_the_rollout_servers_is_refused(adapter: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="adapter would not reach"):
        check("separate_async", **{"lora__merge": False, "lora_rank": 0, **adapter})


def test_the_stock_mode_is_checked_as_well() -> None:
    config = in_mode("separate_async")
    config.trainer.v1.trainer_mode = "separate_async"
    config.actor_rollout_ref.model.lora.merge = False
    with pytest.raises(ConfigError, match="adapter would not reach"):
        check_mode(config)


def test_other_modes_and_full_training_need_no_merging() -> None:
    check("colocate_async", lora__merge=False)
    check("separate_async", lora__merge=False, lora_rank=0)


@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "0"], ".*mlp.*"])
@pytest.mark.parametrize("excluded", [None, ["lm_head"], "visual"])
def test_adapters_that_would_not_be_merged_are_refused(targets: Any, excluded: Any) -> None:
    check("separate_async", target_modules=targets, exclude_modules=excluded)  # FSDP1 merges them all
    with pytest.raises(ConfigError, match="vision tower"):
        check("separate_async", "fsdp2", target_modules=targets, exclude_modules=excluded)


@pytest.mark.parametrize(
    "names",
    [
        {"exclude_modules": ".*visual.*"},
        {"exclude_modules": ["merger.mlp.0"]},
        {"exclude_modules": None, "target_modules": ["q_proj", "v_proj"]},
    ],
)
def test_adapters_inside_transformer_layers_are_merged(names: dict[str, Any]) -> None:
    check("separate_async", "fsdp2", **names)


@pytest.mark.parametrize("mode", ["colocate_async", "separate_async"])
def test_late_verdicts_are_refused_where_verdicts_are_hidden_anyway(mode: str) -> None:
    config = in_mode(mode)
    OmegaConf.update(config, "speciarl.training.late_verdicts", True, force_add=True)
    with pytest.raises(ConfigError, match=r"late_verdicts=True: .*async does not.* recipe/mode=sync_overlap"):
        check_mode(config)


def test_late_verdicts_are_refused_where_nobody_would_fetch_them() -> None:
    config = in_mode("sync_overlap")
    config.trainer.v1.trainer_mode = "sync"  # veRL's own
    with pytest.raises(ConfigError, match="trainer_mode=sync does not fetch"):
        check_mode(config)
    config = in_mode("sync_overlap")
    config.skip.rollout_tq.enable = True
    with pytest.raises(ConfigError, match=r"skip\.rollout_tq"):
        check_mode(config)


def test_late_verdicts_are_refused_where_groups_are_chosen_by_their_rewards() -> None:
    config = in_mode("sync_overlap")
    assert config.speciarl.training.late_verdicts
    config.algorithm.filter_groups.enable = True
    with pytest.raises(ConfigError, match=r"late_verdicts=True: .* recipe/mode=sync"):
        check_mode(config)
    config.speciarl.training.late_verdicts = False
    check_mode(config)


def test_weights_are_sent_once_per_training_batch() -> None:
    sync_step = in_mode("separate_async").trainer.v1.separate_async.parameter_sync_step
    assert sync_step == 2  # batches of 256, updates of 128


def test_names_that_users_files_hold_lead_to_the_present_ones() -> None:
    old = ("speciarl.training.preflight.Preflight", "speciarl.training.agent_loop_manager.GroupAgentLoopManager")
    new = (
        "speciarl.training.preflight.checks.Preflight",
        "speciarl.training.agent_loop.manager.GroupAgentLoopManager",
    )
    assert [get_class(name) for name in old] == [get_class(name) for name in new]
    with pytest.raises(ImportError):
        get_class("speciarl.training.preflight.Preflights")
