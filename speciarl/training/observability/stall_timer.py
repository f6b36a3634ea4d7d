"""Stall timers: how long rollouts waited for nothing but the verifier, and how long it has been silent."""

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from enum import Enum

from speciarl.verdict import Source

_SPOKEN = (Source.LIVE, Source.TAXONOMY)


class Phase(Enum):
    """What a rollout is doing."""

    GENERATING = "generating"
    JUDGING = "judging"
    """Its answer is out and its verdict is not."""
    JUDGED = "judged"
    """It has its verdict and waits for its siblings."""


@dataclass(frozen=True, slots=True)
class Waits:
    """Seconds of wall time."""

    waited_s: float = 0.0
    """No rollout generated and at least one had no verdict yet."""
    judging_s: float = 0.0
    """At least one rollout had no verdict yet, whatever the others did."""


class WaitClock:
    """Adds up the seconds in which no rollout generates and at least one waits for a verdict.

    That is the time a verifier of infinite speed would save: judging that overlaps with generation costs nothing.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._phases: dict[Hashable, Phase] = {}
        self._counts = dict.fromkeys(Phase, 0)
        self._waited_s = self._judging_s = 0.0
        self._since = now()

    def enter(self, rollout: Hashable, phase: Phase) -> None:
        """A rollout begins a phase, and ends the one it was in."""
        self.leave(rollout)
        self._phases[rollout] = phase
        self._counts[phase] += 1

    def leave(self, rollout: Hashable) -> None:
        """A rollout is done, in whatever way."""
        self._advance()
        phase = self._phases.pop(rollout, None)
        if phase is not None:
            self._counts[phase] -= 1

    def drain(self) -> Waits:
        """What was added up since the last call."""
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
