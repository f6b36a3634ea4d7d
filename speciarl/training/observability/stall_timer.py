"""Stall timers: how long rollouts waited for nothing but the verifier, and how long it has been silent."""

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from enum import Enum

from speciarl.verdict import Source

_JUDGED_NOW = (Source.LIVE, Source.TAXONOMY)
"""Sources of verdicts that prove the judge alive; others were known before."""


class Phase(Enum):
    """Phase of a rollout in its worker."""

    GENERATING = "generating"
    JUDGING = "judging"
    """Its response is complete, its verdict not yet in."""
    JUDGED = "judged"
    """Its verdict is in; it waits at the barrier for its siblings."""


@dataclass(frozen=True, slots=True)
class Waits:
    """Wall time of two kinds of waiting, in seconds."""

    waited_s: float = 0.0
    """No rollout generated and at least one had no verdict yet."""
    judging_s: float = 0.0
    """At least one rollout had no verdict yet, whatever the others did."""


class WaitClock:
    """Clock of one worker: seconds in which no rollout generates and at least one waits for a verdict.

    That is the time a verifier of infinite speed would save: judging that overlaps with generation costs nothing.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._phases: dict[Hashable, Phase] = {}
        self._counts = dict.fromkeys(Phase, 0)
        self._waited_s = self._judging_s = 0.0
        self._since = now()

    def begin(self, rollout: Hashable, phase: Phase) -> None:
        """Record that a rollout begins a phase; the one it was in ends."""
        self.end(rollout)
        self._phases[rollout] = phase
        self._counts[phase] += 1

    def end(self, rollout: Hashable) -> None:
        """Record that a rollout has ended; harmless when repeated."""
        self._advance()
        phase = self._phases.pop(rollout, None)
        if phase is not None:
            self._counts[phase] -= 1

    def drain(self) -> Waits:
        """Seconds since the last call; both sums begin anew."""
        self._advance()
        waits = Waits(self._waited_s, self._judging_s)
        self._waited_s = self._judging_s = 0.0
        return waits

    def _advance(self) -> None:
        now = self._now()
        if self._counts[Phase.JUDGING]:
            self._judging_s += now - self._since
            if not self._counts[Phase.GENERATING]:
                self._waited_s += now - self._since
        self._since = now


class SilenceClock:
    """Clock of one worker: seconds in which verdicts were waited for since the judge gave the last one.

    Time in which nobody waits does not count: between two steps a run may train for longer than an outage may last.
    A verdict from memory or store is no sign of life: a run whose judge is gone would otherwise go on for as long as
    some pairs of each step are known, and learn from these alone.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._pending = 0
        self._silent_s = 0.0
        self._since = 0.0
        self._failed = False
        self._before = 0.0

    def begin_wait(self) -> None:
        """Record that a rollout begins to wait for a verdict."""
        self._advance()
        if not self._pending:
            self._before, self._failed = self._silent_s, False
        self._pending += 1

    def end_wait(self, source: Source | None) -> None:
        """Record that a rollout's wait is over, with a verdict of that source; None: without one."""
        self._advance()
        self._pending -= 1
        if source in _JUDGED_NOW:
            self._silent_s = self._before = 0.0
            self._failed = False
        elif source is None:
            self._failed = True
        elif not self._pending and not self._failed:
            self._silent_s = self._before  # all were known: the time of look-ups is not the judge's

    def seconds(self) -> float | None:
        """Seconds of silence so far; None when nobody waits and no wait since the last verdict ended without one."""
        self._advance()
        return self._silent_s if self._pending or self._silent_s else None

    def _advance(self) -> None:
        now = self._now()
        if self._pending:
            self._silent_s += now - self._since
        self._since = now
