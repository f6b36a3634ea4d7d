"""vLLM plug-in (general): vLLM calls ``register`` in each of its processes before it loads a model."""

from speciarl.cpu import patches
from speciarl.patches.board import PatchBoard


def register() -> None:
    """Install the patches that weight sync needs on vLLM's CPU backend; does nothing on any other. Idempotent."""
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    board = PatchBoard()
    for patch in patches.VLLM_PROCESS:
        board.install(patch)
