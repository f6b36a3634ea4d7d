"""Device module of the CPU, as ``torch.cuda`` is CUDA's: veRL asks it for memory, streams and random state.

veRL calls functions of ``torch.cuda`` on whatever module the platform names (``get_torch_device()``). Those that
``torch.cpu`` has as well come from there; the rest is defined here. The CPU has no device allocator, so its
counters read 0 bytes.
"""

from typing import Any

import psutil
import torch

from speciarl.cpu.device_index import DeviceIndex


def is_available() -> bool:
    """Always True: the CPU is there."""
    return True


def device_count() -> int:
    """Always 1: all cores together are one device."""
    return 1


def current_device() -> DeviceIndex:
    """The only device."""
    return DeviceIndex()


def get_device_name(device: Any = None) -> str:
    """Name of the device, for reports."""
    return "CPU"


def mem_get_info(device: Any = None) -> tuple[int, int]:
    """Available and total memory of the machine, in bytes."""
    memory = psutil.virtual_memory()
    return int(memory.available), int(memory.total)


def memory_allocated(device: Any = None) -> int:
    """0 bytes: there is no device allocator to ask."""
    return 0


memory_reserved = max_memory_allocated = max_memory_reserved = memory_allocated


def empty_cache() -> None:
    """Nothing to do: there is no device allocator."""


ipc_collect = empty_cache


def reset_peak_memory_stats(device: Any = None) -> None:
    """Nothing to do: there is no device allocator."""


def set_per_process_memory_fraction(fraction: float, device: Any = None) -> None:
    """Nothing to do: the operating system shares out memory."""


def set_device(device: Any) -> None:
    """Nothing to do: there is one device."""


def synchronize(device: Any = None) -> None:
    """Nothing to do: CPU work is done when the call returns."""


def manual_seed(seed: int) -> None:
    """Seed torch's CPU generator."""
    torch.manual_seed(seed)


manual_seed_all = manual_seed


def get_rng_state(device: Any = None) -> torch.Tensor:
    """State of torch's CPU generator; veRL saves it in checkpoints."""
    return torch.get_rng_state()


def set_rng_state(state: torch.Tensor, device: Any = None) -> None:
    """Restore what ``get_rng_state`` gave."""
    torch.set_rng_state(state)


def __getattr__(name: str) -> Any:
    """Attribute of ``torch.cpu``: streams, events and whatever else it offers under the same name."""
    try:
        return getattr(torch.cpu, name)
    except AttributeError:
        raise AttributeError(f"neither speciarl.cpu.device_module nor torch.cpu has {name!r}") from None
