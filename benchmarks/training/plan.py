"""Which step of a benchmark's run is what."""

from collections.abc import Sequence

FREE = "free"
"""Ours, with verdicts at no cost."""
STOCK = "stock"
"""veRL's own worker, with a constant reward."""


def condition(plan: Sequence[str], hold: int, step: int) -> str:
    """What a step is, counted from 1: an entry of the plan, each held for so many steps, again and again. Entries other
    than the two above are seconds by which every verdict is late."""
    return str(plan[(max(step, 1) - 1) // hold % len(plan)])
