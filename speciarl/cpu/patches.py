"""CPU patches: spots where veRL, torch and vLLM assume an accelerator and offer no hook. See docs/patches.md."""

import functools
from typing import Any

from speciarl.patches.board import Patch

VERL_VERSION = "0.9.1"
VLLM_VERSION = "0.24.0"

_TWICE_GLOO = "cpu:gloo,cpu:gloo"


def _single_gloo(distributed: Any) -> None:
    original = distributed.init_process_group
    if getattr(original, "speciarl_single_gloo", False):
        return

    @functools.wraps(original)
    def init_process_group(backend: str | None = None, *args: Any, **kwargs: Any) -> Any:
        return original("cpu:gloo" if backend == _TWICE_GLOO else backend, *args, **kwargs)

    init_process_group.speciarl_single_gloo = True  # type: ignore[attr-defined]
    distributed.init_process_group = init_process_group


def _offload_unpinned(transformer_impl: Any) -> None:
    original = transformer_impl.CPUOffloadPolicy
    if getattr(original, "speciarl_unpinned", False):
        return

    def policy(pin_memory: bool = True) -> Any:
        return original(pin_memory=False)

    policy.speciarl_unpinned = True  # type: ignore[attr-defined]
    transformer_impl.CPUOffloadPolicy = policy


def _keep_linear_weights(utils: Any) -> None:
    original = utils.dispatch_cpu_unquantized_gemm
    if getattr(original, "speciarl_keeps_weights", False):
        return

    @functools.wraps(original)
    def dispatch(layer: Any, remove_weight: bool) -> None:
        from torch.nn import functional

        weight = layer.weight
        # Left to vLLM: weights that are not loaded yet, or are no matrices.
        if weight.is_meta or weight.ndim != 2:
            original(layer, remove_weight)
        else:
            layer.cpu_linear = functional.linear

    dispatch.speciarl_keeps_weights = True  # type: ignore[attr-defined]
    utils.dispatch_cpu_unquantized_gemm = dispatch


SINGLE_GLOO = Patch(
    name="single-gloo-backend",
    distribution="verl",
    version=VERL_VERSION,
    module="torch.distributed",
    reason='veRL builds the backend string "cpu:gloo,<device>:<backend>"; with the device "cpu" torch refuses the '
    "second entry for the same device.",
    upstream="https://github.com/verl-project/verl/pull/7512 (verl/utils/distributed.py)",
    apply=_single_gloo,
)

UNPINNED_REFERENCE = Patch(
    name="unpinned-reference",
    distribution="verl",
    version=VERL_VERSION,
    module="verl.workers.engine.fsdp.transformer_impl",
    reason="veRL keeps the FSDP2 reference policy in pinned host memory, and torch refuses to pin memory on a machine "
    "without an accelerator.",
    upstream="verl/workers/engine/fsdp/transformer_impl.py, _build_fsdp_module",
    apply=_offload_unpinned,
)

VLLM_KEEPS_LINEAR_WEIGHTS = Patch(
    name="vllm-keeps-linear-weights",
    distribution="vllm",
    version=VLLM_VERSION,
    module="vllm.model_executor.layers.utils",
    reason="vLLM's CPU backend multiplies with a packed copy of each linear weight and drops the parameter, so that "
    "weights synced from the trainer have nowhere to go (or, for tied embeddings, no effect).",
    upstream="vllm/model_executor/layers/utils.py, dispatch_cpu_unquantized_gemm",
    apply=_keep_linear_weights,
)

VERL_PROCESS = (SINGLE_GLOO, UNPINNED_REFERENCE)
"""Patches for every process that imports veRL."""
VLLM_PROCESS = (VLLM_KEEPS_LINEAR_WEIGHTS,)
"""Patches for every process that vLLM starts."""
