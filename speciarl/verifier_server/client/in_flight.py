"""Flight: one pair that is being judged, shared by all callers who wait for it (single-flight)."""

import asyncio

from speciarl.verdict import Judgement


class Flight:
    """Whether anybody still waits, and whether a judge is at work.

    When the last caller leaves, a flight that is not at a judge is dropped, which frees its place in the queue. One
    that is at a judge is paid for already: its verdict is kept for whoever asks next, and only retries are spared.
    """

    def __init__(self) -> None:
        self.task: asyncio.Task[Judgement] | None = None
        self.dropped = False
        """Given up for want of callers: it brings no verdict, and whoever asks now needs another flight."""
        self._waiting = 0
        self._at_judge = 0
        self._settled = False

    def join(self) -> None:
        """A caller begins to wait."""
        self._waiting += 1

    def leave(self) -> None:
        """A caller stops waiting."""
        self._waiting -= 1
        busy = self._at_judge or self._settled or self.task is None or self.task.done()
        if not busy and self.drop_if_deserted() and self.task is not None:
            self.task.cancel()

    def depart(self) -> None:
        """A request goes out to a judge."""
        self._at_judge += 1

    def arrive(self) -> None:
        """A request came back from a judge."""
        self._at_judge -= 1

    def settle(self) -> None:
        """A judge has given its verdict; all that is left is to keep it, which nobody's leaving may prevent."""
        self._settled = True

    def drop_if_deserted(self) -> bool:
        """Give the flight up if nobody waits any more; whether it was given up."""
        self.dropped = self.dropped or self._waiting == 0
        return self.dropped
