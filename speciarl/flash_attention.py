"""Flash-attention: whether it is installed, and what runs do without it."""

import importlib.util

WITHOUT = "runs use sdpa attention without packing, which takes more time and memory per token"
REMEDY = "`make setup` installs it where a wheel or a CUDA compiler is to be had; see docs/install.md"


def installed() -> bool:
    """Whether flash-attention 2 can be imported here, or the package that stands in for it on Ascend.

    Looks for the compiled extension, without importing it: other packages share the name ``flash_attn``.
    """
    return any(importlib.util.find_spec(name) is not None for name in ("flash_attn_2_cuda", "torch_npu"))
