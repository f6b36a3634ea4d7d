"""What the main recipe lets veRL do with an adapter: keep it in float32, collect it layer by layer, save it alone. On a
miniature of the real model, sharded as veRL shards it, over one device."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from composed_run import composed
from peft import LoraConfig, get_peft_model
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, MixedPrecisionPolicy
from transformers import AutoModelForImageTextToText
from verl.utils.checkpoint.fsdp_checkpoint_manager import FSDPCheckpointManager
from verl.utils.config import omega_conf_to_dataclass
from verl.utils.fsdp_utils import apply_fsdp2, collect_lora_params, get_fsdp_wrap_policy, layered_summon_lora_params
from verl.utils.torch_dtypes import PrecisionType

from speciarl.hydra_support.resolvers import device, package_path

DEVICE = device()


@pytest.fixture(scope="module", autouse=True)
def one_device() -> Iterator[None]:
    """A process group of this process alone."""
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if DEVICE == "cuda" else "gloo", store=dist.HashStore(), rank=0, world_size=1
    )
    yield
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def recipe() -> Any:
    return composed("+recipe=speciarl").actor_rollout_ref


@pytest.fixture
def model(recipe: Any) -> torch.nn.Module:
    """The laptop policy with the recipe's adapter, in the recipe's precision."""
    dtype = PrecisionType.to_dtype(recipe.actor.fsdp_config.model_dtype)
    base = AutoModelForImageTextToText.from_pretrained(package_path("laptop/models/policy"), dtype=dtype)
    adapter = LoraConfig(
        r=4, lora_alpha=2, target_modules=recipe.model.target_modules, exclude_modules=recipe.model.exclude_modules
    )
    return get_peft_model(base, adapter).to(DEVICE)


def sharded(model: torch.nn.Module, recipe: Any) -> torch.nn.Module:
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    mesh = init_device_mesh(DEVICE, (1,), mesh_dim_names=("fsdp",))
    apply_fsdp2(model, {"mesh": mesh, "mp_policy": policy}, recipe.actor.fsdp_config)
    return model


def adapter_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """By the names that rollout servers know."""
    return {
        name.replace(".default.", "."): parameter.detach().clone().cpu()
        for name, parameter in model.named_parameters()
        if "lora_" in name
    }


def test_rollout_servers_get_the_whole_adapter_in_float32(model: torch.nn.Module, recipe: Any) -> None:
    wanted = adapter_of(model)
    assert len(wanted) == 56
    assert not [name for name in wanted if "visual" in name]
    sent = collect_lora_params(sharded(model, recipe), recipe.rollout.layered_summon, base_sync_done=True)
    assert sent.keys() == wanted.keys()
    assert all(value.dtype == torch.float32 and torch.equal(value, wanted[name]) for name, value in sent.items())


def test_with_fsdp1_verl_finds_no_adapter_layer_by_layer(model: torch.nn.Module) -> None:
    """The reason for the recipe's `strategy: fsdp2`."""
    policy = get_fsdp_wrap_policy(model, config={"min_num_params": 0}, is_lora=True)
    first = FullyShardedDataParallel(
        model, auto_wrap_policy=policy, device_id=torch.device(DEVICE), use_orig_params=False
    )
    assert not layered_summon_lora_params(first)


def test_a_checkpoint_holds_the_adapter_alone_and_brings_it_back(
    model: torch.nn.Module, recipe: Any, tmp_path: Path
) -> None:
    saved = adapter_of(model)
    trained = sharded(model, recipe)
    optimizer = torch.optim.AdamW([parameter for parameter in trained.parameters() if parameter.requires_grad])
    keeper = FSDPCheckpointManager(
        trained, optimizer, processing_class=None, checkpoint_config=omega_conf_to_dataclass(recipe.actor.checkpoint)
    )
    keeper.save_checkpoint(str(tmp_path / "step"))
    held = torch.load(tmp_path / "step" / "model_world_size_1_rank_0.pt", weights_only=False)
    assert {name.replace(".default.", ".") for name in held} == saved.keys()
    with torch.no_grad():
        for parameter in optimizer.param_groups[0]["params"]:
            parameter.add_(1)
    keeper.load_checkpoint(str(tmp_path / "step"))
    back = collect_lora_params(trained, True, base_sync_done=True)
    assert all(torch.equal(back[name], value) for name, value in saved.items())
