"""Seeded draws that are the same on every machine: hashes of seed, purpose and sample id, without generator state.

What happens to one sample then never depends on which others there are, or on the order in which a disk lists them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

_BYTES = 8


def draw(seed: int, purpose: str, key: str) -> float:
    """A number in [0, 1), uniform over keys; different purposes are independent."""
    digest = hashlib.sha256(f"{seed}\x1f{purpose}\x1f{key}".encode()).digest()
    # The top 53 bits fill a float exactly, so 1.0 is never reached by rounding.
    return (int.from_bytes(digest[:_BYTES], "big") >> 11) / (1 << 53)


def choose(seed: int, purpose: str, key: str, weights: Mapping[str, float]) -> str:
    """A name drawn in proportion to its weight; the order of `weights` does not matter.

    Raises ValueError when no weight is above zero.
    """
    names = sorted(name for name, weight in weights.items() if weight > 0)
    if not names:
        raise ValueError("no weight is above zero")
    left = draw(seed, purpose, key) * sum(weights[name] for name in names)
    for name in names:
        left -= weights[name]
        if left < 0:
            return name
    return names[-1]  # only by rounding


def shares(total: int, weights: Mapping[str, float]) -> dict[str, int]:
    """Whole parts of `total` in the proportion of the weights (largest remainder; ties go by name).

    Raises ValueError when no weight is above zero.
    """
    whole = math.fsum(weights.values())  # the same in any order
    if whole <= 0:
        raise ValueError("no weight is above zero")
    exact = {name: total * weight / whole for name, weight in weights.items()}
    parts = {name: int(value) for name, value in exact.items()}
    by_remainder = sorted(exact, key=lambda name: (parts[name] - exact[name], name))
    for name in by_remainder[: total - sum(parts.values())]:
        parts[name] += 1
    return parts
