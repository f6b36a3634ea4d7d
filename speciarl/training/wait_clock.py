"""How long a worker's rollouts waited for nothing but the verifier."""

import time
from collections.abc import Callable, Hashable
from enum import Enum


class Phase(Enum):
    """What a rollout is doing."""

    GENERATING = "generating"
    JUDGING = "judging"
    """Its answer is out and its reward is not final yet."""


class WaitClock:
    """Adds up the seconds in which no rollout generates and at least one waits for a verdict.

    That is the time a verifier of infinite speed would save: judging that overlaps with generation costs nothing.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._phases: dict[Hashable, Phase] = {}
        self._waited_s = 0.0
        self._since = now()

    def enter(self, rollout: Hashable, phase: Phase) -> None:
        """A rollout begins a phase, and ends the one it was in."""
        self._advance()
        self._phases[rollout] = phase

    def leave(self, rollout: Hashable) -> None:
        """A rollout is done, in whatever way."""
        self._advance()
        self._phases.pop(rollout, None)

    def drain(self) -> float:
        """Seconds waited since the last call."""
        self._advance()
        waited, self._waited_s = self._waited_s, 0.0
        return waited

    def _advance(self) -> None:
        now = self._now()
        if self._phases and all(phase is Phase.JUDGING for phase in self._phases.values()):
            self._waited_s += now - self._since
        self._since = now
