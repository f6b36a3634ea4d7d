"""Counts of durations in fixed buckets."""

from bisect import bisect_left

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""Upper bounds of the buckets, in seconds; a last bucket without bound follows."""

Snapshot = tuple[tuple[float, ...], tuple[int, ...], float]
"""Bounds, shape (n,), inf not among them; cumulative counts, shape (n + 1,), the last one counting all; the sum."""


class Histogram:
    """How often which durations occurred."""

    def __init__(self, bounds: tuple[float, ...] = SECONDS) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def note(self, value: float) -> None:
        """Count one duration; a bucket includes its upper bound."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def snapshot(self) -> Snapshot:
        """What was counted so far."""
        cumulative, total = [], 0
        for count in self._counts:
            total += count
            cumulative.append(total)
        return self._bounds, tuple(cumulative), self._sum
