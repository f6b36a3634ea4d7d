"""Each patch of torch: what fails without it, and that it works with it. (vLLM's is in tests/integration.)"""

import types
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch.distributed import distributed_c10d
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, fully_shard

from speciarl.cpu import patches

BACKEND = "cpu:gloo,cpu:gloo"  # as verl/utils/distributed.py builds it for the device "cpu"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[torch.distributed.FileStore]:
    yield torch.distributed.FileStore(str(tmp_path / "store"), 1)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def test_torch_refuses_a_backend_given_twice(store: torch.distributed.FileStore) -> None:
    unpatched = distributed_c10d.init_process_group
    with pytest.raises(ValueError, match="Duplicate device type"):
        unpatched(BACKEND, store=store, rank=0, world_size=1)


def test_backend_given_twice_counts_once(store: torch.distributed.FileStore) -> None:
    module = types.SimpleNamespace(init_process_group=distributed_c10d.init_process_group)
    patches.SINGLE_GLOO.apply(module)
    module.init_process_group(BACKEND, store=store, rank=0, world_size=1, timeout=timedelta(seconds=20))
    tensor = torch.ones(3)
    torch.distributed.all_reduce(tensor)
    assert tensor.tolist() == [1, 1, 1]


def test_other_backends_pass_unchanged() -> None:
    seen = []
    module = types.SimpleNamespace(init_process_group=lambda backend=None, **more: seen.append((backend, more)))
    patches.SINGLE_GLOO.apply(module)
    module.init_process_group("cpu:gloo,cuda:nccl", rank=1)
    module.init_process_group(backend=None)
    assert seen == [("cpu:gloo,cuda:nccl", {"rank": 1}), (None, {})]


def test_verl_makes_its_process_group(monkeypatch: pytest.MonkeyPatch, store: torch.distributed.FileStore) -> None:
    from verl.utils.distributed import initialize_global_process_group_ray

    monkeypatch.setenv("DIST_INIT_METHOD", f"file://{store.path}.verl")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    initialize_global_process_group_ray(timeout_second=20)
    assert torch.distributed.get_world_size() == 1


def test_reference_is_sharded_without_pinned_memory(store: torch.distributed.FileStore) -> None:
    def shard(policy: CPUOffloadPolicy) -> None:
        mesh = init_device_mesh("cpu", (1,))
        model = fully_shard(torch.nn.Linear(4, 2), mesh=mesh, offload_policy=policy)
        assert model(torch.ones(1, 4)).shape == (1, 2)

    distributed_c10d.init_process_group("cpu:gloo", store=store, rank=0, world_size=1)
    # A build of torch for CUDA misses the driver, one for CPUs any accelerator.
    with pytest.raises(RuntimeError, match=r"accelerator|NVIDIA driver"):
        shard(CPUOffloadPolicy(pin_memory=True))
    module = types.SimpleNamespace(CPUOffloadPolicy=CPUOffloadPolicy)
    patches.UNPINNED_REFERENCE.apply(module)
    shard(module.CPUOffloadPolicy(pin_memory=True))


def test_verls_engine_is_patched() -> None:
    from verl.workers.engine.fsdp import transformer_impl

    assert transformer_impl.CPUOffloadPolicy(pin_memory=True).pin_memory is False


def test_applying_twice_changes_nothing() -> None:
    module = types.SimpleNamespace(init_process_group=lambda backend=None: backend)
    patches.SINGLE_GLOO.apply(module)
    once = module.init_process_group
    patches.SINGLE_GLOO.apply(module)
    assert module.init_process_group is once
