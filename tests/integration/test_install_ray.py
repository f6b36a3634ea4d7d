"""Ray's workers are set up like the driver: each imports veRL, and so loads the plug-in."""

from collections.abc import Iterator
from typing import Any

import pytest
import ray
import verl  # noqa: F401  (loads the plug-in here)
from omegaconf import DictConfig, OmegaConf

from speciarl.cpu import environment, stack

pytestmark = pytest.mark.skipif(not stack.active(), reason="about a CPU installation")


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    sizes = {"num_cpus": 1, "num_gpus": 1, "object_store_memory": 100_000_000}
    ray.init(address="local", include_dashboard=False, log_to_driver=False, **sizes)
    yield
    ray.shutdown()


@ray.remote(num_cpus=1, num_gpus=1)
def look_around(config: DictConfig) -> dict[str, Any]:
    import os

    from verl.utils.device import get_device_name, get_resource_name

    accelerators = ray.get_runtime_context().get_accelerator_ids()[get_resource_name()]
    return {
        "resolved": OmegaConf.to_container(config, resolve=True),
        "device": get_device_name(),
        "environment": dict(os.environ),
        "accelerators": accelerators,
    }


@pytest.mark.usefixtures("cluster")
def test_worker_has_resolvers_platform_and_environment() -> None:
    config = OmegaConf.create(
        {
            "device": "${speciarl.device:}",
            "slots": "${speciarl.on_cpu:1,null}",
            "file": "${speciarl.package_path:plugin.py}",
        }
    )
    seen = ray.get(look_around.remote(config), timeout=120)
    assert seen["resolved"]["device"] == "cpu"
    assert seen["resolved"]["slots"] == 1
    assert seen["resolved"]["file"].endswith("speciarl/plugin.py")
    assert seen["device"] == "cpu"
    assert seen["accelerators"] == ["0"]  # the pretended GPU that stands for a trainer's slot
    missing = {name for name in environment.variables() if name not in seen["environment"]}
    assert missing == set()
