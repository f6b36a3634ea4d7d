"""CPU stack: whether this installation trains on the CPU."""

import importlib.metadata
import os

import torch


def built_for_cpu() -> bool:
    """Whether the installed packages can only compute on CPUs: a CPU build of torch, or of vLLM.

    The build decides, not the visible devices: a Ray actor without GPUs, or a cluster's login node, sees no
    device either, yet belongs to a GPU run. vLLM's CPU build counts by itself because some package indexes
    carry only the CUDA build of torch, which runs on CPUs as well. Ascend's torch_npu extends a CPU build.
    """
    if hasattr(torch, "npu"):
        return False
    if torch.version.cuda is None and torch.version.hip is None:
        return True
    try:
        return importlib.metadata.version("vllm").endswith("+cpu")
    except importlib.metadata.PackageNotFoundError:
        return False


def active() -> bool:
    """Whether the CPU platform is to be used: CPU packages, no accelerator, and nothing else asked of veRL.

    ``VERL_PLATFORM`` is veRL's own switch (verl/plugin/platform/platform_manager.py); a user who names another
    platform there is obeyed.
    """
    asked = os.environ.get("VERL_PLATFORM", "").strip().lower()
    return asked in ("", "cpu") and built_for_cpu() and not torch.cuda.is_available()
