"""Environment variables of third parties that a CPU run needs: the one place where they are set.

They are environment variables because the packages that read them offer nothing else. Users set none of them:
the plug-in puts them into each process (and so into its children) unless they are set already.
"""

from collections.abc import Mapping, MutableMapping
from types import MappingProxyType

_VARIABLES: Mapping[str, str] = MappingProxyType(
    {
        # veRL registers its FSDP engines for "cuda" and "npu" only (verl/workers/engine/fsdp/transformer_impl.py).
        # The "cuda" classes are device-neutral; this picks them while the platform still says "cpu".
        "VERL_ENGINE_DEVICE": "cuda",
        # GiB of KV cache for each vLLM engine. Unset, vLLM takes a large share of the machine's memory.
        "VLLM_CPU_KVCACHE_SPACE": "1",
        # vLLM otherwise pins its threads to cores, and two engines on one machine would share the same ones.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        # Several engines, workers and the driver share few cores; more threads each only makes them wait.
        "OMP_NUM_THREADS": "1",
        # The same for TransferQueue, which asks for 8 and, with fewer cores, warns of it at every put and get.
        "TQ_NUM_THREADS": "1",
        # Off, vLLM's engine computes in its own process instead of starting one more for its only device. vLLM wants
        # that one for the sake of binding threads to cores, which the two lines above leave alone. Saves the time to
        # load the whole stack once more.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        # Compiling pays off on large models only: a tiny judge's first answer takes 15 s with it, 0.2 s without.
        "TORCHDYNAMO_DISABLE": "1",
        "TORCH_COMPILE_DISABLE": "1",
        # Usage reports: none from runs on laptops and in tests, which may well be offline.
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
)


def variables() -> dict[str, str]:
    """Variables for a process of a CPU run, e.g. for the environment of a ``vllm serve`` that we start."""
    return dict(_VARIABLES)


def apply(environ: MutableMapping[str, str]) -> dict[str, str]:
    """Set every variable that ``environ`` lacks; what is set already stays.

    Returns:
        The variables that were set.
    """
    added = {name: value for name, value in _VARIABLES.items() if name not in environ}
    environ.update(added)
    return added
