"""Poll hook: lets the trainer check a run while veRL waits for rollouts, which it does without a deadline."""

import time
from collections.abc import Callable
from typing import Any

INTERVAL_S = 5.0
"""Between two checks."""


class PollHook:
    """Hook that is called between two polls of a replay buffer, at most every `interval_s` seconds.

    It wraps the private `_wait_for_next_poll`, which all of veRL's buffers share: veRL's own extension point, a custom
    sampler, would have to reimplement group filtering and refills as well.
    """

    def __init__(self, check: Callable[[], None], interval_s: float = INTERVAL_S) -> None:
        self._check = check
        self._interval_s = interval_s
        self._next = 0.0

    def install(self, buffer: Any) -> Any:
        """The same buffer, with the hook installed. What the check raises ends the buffer's wait."""
        pause = buffer._wait_for_next_poll

        def check_and_pause(partition_id: str, last_debug_time: float) -> Any:
            self._check_if_due()
            return pause(partition_id, last_debug_time)

        buffer._wait_for_next_poll = check_and_pause
        return buffer

    def _check_if_due(self) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._check()
            # Counted from the end of the check, which may take long itself.
            self._next = time.monotonic() + self._interval_s
