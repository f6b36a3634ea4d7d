"""OmegaConf resolvers that recipes use: ``speciarl.device``, ``on_cpu``, ``flash_attention``, ``package_path``,
``quotient`` and ``sum``."""

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

import speciarl
from speciarl import flash_attention
from speciarl.cpu import stack


def device() -> str:
    """``${speciarl.device:}``: torch's name of what this installation trains on: ``cuda``, ``npu`` or ``cpu``.

    An installation for GPUs gives ``cuda`` even where none is visible, as on a cluster's login node.
    """
    if stack.active():
        return "cpu"
    import torch  # here, so that what only wants a path loads nothing of it

    return "npu" if hasattr(torch, "npu") else "cuda"


def on_cpu(then: Any, otherwise: Any) -> Any:
    """``${speciarl.on_cpu:<then>,<otherwise>}``: the first value if training runs on the CPU, else the second.

    Values are numbers, strings, booleans, lists or ``null``.
    """
    return then if stack.active() else otherwise


def with_flash_attention(then: Any, otherwise: Any) -> Any:
    """``${speciarl.flash_attention:<then>,<otherwise>}``: the first value if flash-attention is installed, else the
    second. Values as for ``on_cpu``."""
    return then if flash_attention.installed() else otherwise


def package_path(relative: str) -> str:
    """``${speciarl.package_path:laptop/models/judge}``: absolute path of a file or directory shipped in ``speciarl``.

    Raises:
        FileNotFoundError: the package has nothing under that path.
    """
    path = Path(speciarl.__file__).resolve().parent / relative
    if not path.exists():
        raise FileNotFoundError(f"the speciarl package has no {relative!r} (looked for {path})")
    return str(path)


def quotient(dividend: int, divisor: int) -> int:
    """``${speciarl.quotient:<dividend>,<divisor>}``: the quotient of two whole numbers.

    Raises:
        ValueError: there is a remainder.
    """
    whole, rest = divmod(dividend, divisor)
    if rest:
        raise ValueError(f"{dividend} is no multiple of {divisor}")
    return whole


def total(*numbers: int) -> int:
    """``${speciarl.sum:${data.max_prompt_length},${data.max_response_length}}``: whole numbers, added."""
    return sum(numbers)


def register() -> None:
    """Register all resolvers with OmegaConf; idempotent."""
    OmegaConf.register_new_resolver("speciarl.device", device, replace=True)
    OmegaConf.register_new_resolver("speciarl.on_cpu", on_cpu, replace=True)
    OmegaConf.register_new_resolver("speciarl.flash_attention", with_flash_attention, replace=True)
    OmegaConf.register_new_resolver("speciarl.package_path", package_path, replace=True)
    OmegaConf.register_new_resolver("speciarl.quotient", quotient, replace=True)
    OmegaConf.register_new_resolver("speciarl.sum", total, replace=True)
