"""Which step of a benchmark's run is what."""

from collections.abc import Sequence

FREE = "free"
"""Ours, with verdicts at no cost."""
STOCK = "stock"
"""veRL's own worker, with a constant reward."""
IN_PROCESS = "in_process"
"""Ours, with a verifier in the worker's own process in place of the run's service."""


def condition(plan: Sequence[str], hold: int, step: int) -> str:
    """What a step is, counted from 1: an entry of the plan, each held for so many steps, again and again. Entries other
    than those above are seconds by which every verdict is late."""
    return str(plan[(max(step, 1) - 1) // hold % len(plan)])
