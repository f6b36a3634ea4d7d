"""For how long a verifier that is being asked has given no verdict."""

import time
from collections.abc import Callable

from speciarl.verdict import Source

_SPOKEN = (Source.LIVE, Source.TAXONOMY)


class SilenceClock:
    """Adds up the seconds in which verdicts were waited for, since the judge gave the last one.

    Time in which nobody asks does not count: between two steps a run may train for longer than an outage may last.
    A verdict that was known already says nothing of the judge: a run whose judge is gone would otherwise go on for as
    long as some pairs of each step are known, and learn from these alone.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._pending = 0
        self._silent_s = 0.0
        self._since = 0.0
        self._failed = False
        self._before = 0.0

    def ask(self) -> None:
        """Somebody begins to wait for a verdict."""
        self._advance()
        if not self._pending:
            self._before, self._failed = self._silent_s, False
        self._pending += 1

    def answer(self, source: Source | None) -> None:
        """Somebody's wait is over, with a verdict from there, or without one."""
        self._advance()
        self._pending -= 1
        if source in _SPOKEN:
            self._silent_s = self._before = 0.0
            self._failed = False
        elif source is None:
            self._failed = True
        elif not self._pending and not self._failed:
            self._silent_s = self._before  # all were known: looking them up is no waiting for the judge

    def seconds(self) -> float | None:
        """Seconds of silence so far; None when nobody waits and none was left without a verdict."""
        self._advance()
        return self._silent_s if self._pending or self._silent_s else None

    def _advance(self) -> None:
        now = self._now()
        if self._pending:
            self._silent_s += now - self._since
        self._since = now
