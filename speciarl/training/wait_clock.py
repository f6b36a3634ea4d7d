"""How long a worker's rollouts waited for nothing but the verifier."""

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from enum import Enum


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
