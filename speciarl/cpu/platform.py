"""CPU platform: veRL's platform interface for a machine without an accelerator.

Source: verl/plugin/platform/platform_base.py of veRL 0.9.1, whose registry is made for platforms from outside.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from verl.plugin.platform import PlatformBase, PlatformRegistry

from speciarl.cpu import device_module, environment
from speciarl.cpu.device_index import DeviceIndex

PLATFORM_NAME = "cpu"


class PlatformCPU(PlatformBase):
    """Platform with all cores as one device and collectives over gloo."""

    @property
    def device_name(self) -> str:
        return "cpu"

    @property
    def vendor_name(self) -> str:
        return "cpu"

    @property
    def device_module(self) -> ModuleType:
        return device_module

    def is_available(self) -> bool:
        return True

    def is_platform_available(self, use_smi_check: bool = False) -> bool:
        # veRL asks the platforms in the order of their registration, so this one is asked last.
        return True

    def current_device(self) -> int:
        index: Any = DeviceIndex()
        return index  # type: ignore[no-any-return]  # a str that serves as an int, see DeviceIndex

    def device_count(self) -> int:
        return device_module.device_count()

    def set_device(self, device_index: int) -> None:
        device_module.set_device(device_index)

    def synchronize(self, device_index: int | None = None) -> None:
        device_module.synchronize(device_index)

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None:
        """Nothing to do: the CPU allocator has no such settings."""

    def empty_cache(self) -> None:
        device_module.empty_cache()

    def get_device_capability(self, device_index: int = 0) -> tuple[int | None, int | None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        # veRL writes the devices of a rollout server into the variable named here. A name that nobody reads keeps
        # CUDA_VISIBLE_DEVICES as it is.
        return "SPECIARL_CPU_VISIBLE_DEVICES"

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        yield

    def profiler_start(self) -> None:
        """Nothing to do: there is no device profiler."""

    def profiler_stop(self) -> None:
        """Nothing to do: there is no device profiler."""

    def ray_resource_name(self) -> str:
        # The recipe declares pretended GPUs to Ray (ray_kwargs.ray_init.num_gpus), one for each process that would
        # own one. The name must be "GPU": veRL looks it up in get_accelerator_ids(), where Ray lists only the
        # accelerators it knows.
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        return ["RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"]

    def is_ipc_supported(self) -> bool:
        # Weights then travel to the rollout server through POSIX shared memory.
        return False

    def rollout_env_vars(self) -> dict[str, str]:
        return environment.variables()

    def cudart(self) -> Any:
        return None


def register() -> None:
    """Register the platform with veRL as ``cpu``; detection picks it where no other platform is available."""
    PlatformRegistry.register(platform=PLATFORM_NAME)(PlatformCPU)
