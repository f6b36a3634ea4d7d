"""vLLM's general plug-in: vLLM calls ``register`` in each of its processes before it loads a model."""

from speciarl.cpu import patches
from speciarl.patches.board import PatchBoard


def register() -> None:
    """Make weight sync work on vLLM's CPU backend; do nothing on any other. May be called several times."""
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    board = PatchBoard()
    for patch in patches.VLLM_PROCESS:
        board.install(patch)
