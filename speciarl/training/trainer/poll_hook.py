"""Poll hook: what the trainer checks while it waits for rollouts, as veRL waits for ever."""

import time
from collections.abc import Callable
from typing import Any

INTERVAL_S = 5.0
"""Between two looks."""


class Watch:
    """Lets a replay buffer look around, now and then, while it waits for groups to finish.

    Wraps the buffer's pause between two polls, which is the same for all of veRL's buffers; a custom sampler of veRL's
    would have to take over group filtering and refills as well.
    """

    def __init__(self, look: Callable[[], None], interval_s: float = INTERVAL_S) -> None:
        self._look = look
        self._interval_s = interval_s
        self._next = 0.0

    def over(self, buffer: Any) -> Any:
        """The same buffer, watched. What `look` raises ends the wait."""
        pause = buffer._wait_for_next_poll

        def pause_and_look(partition_id: str, last_debug_time: float) -> Any:
            self.now_and_then()
            return pause(partition_id, last_debug_time)

        buffer._wait_for_next_poll = pause_and_look
        return buffer

    def now_and_then(self) -> None:
        """Look, unless that was done a moment ago."""
        now = time.monotonic()
        if now >= self._next:
            self._look()
            self._next = time.monotonic() + self._interval_s
