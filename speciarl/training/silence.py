"""For how long a verifier that is being asked has given no verdict."""

import time
from collections.abc import Callable


class SilenceClock:
    """Adds up the seconds in which verdicts were waited for, since the last one came.

    Time in which nobody asks does not count: between two steps a run may train for longer than an outage may last.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._pending = 0
        self._silent_s = 0.0
        self._since = 0.0

    def ask(self) -> None:
        """Somebody begins to wait for a verdict."""
        self._advance()
        self._pending += 1

    def answer(self, verdict: bool) -> None:
        """Somebody's wait is over, with a verdict or without."""
        self._advance()
        self._pending -= 1
        if verdict:
            self._silent_s = 0.0

    def seconds(self) -> float | None:
        """Seconds of silence so far; None when nobody waits and the last answer was a verdict."""
        self._advance()
        return self._silent_s if self._pending or self._silent_s else None

    def _advance(self) -> None:
        now = self._now()
        if self._pending:
            self._silent_s += now - self._since
        self._since = now
