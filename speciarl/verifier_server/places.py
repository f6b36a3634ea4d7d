"""The local queue: who may have a request in flight, and in which order the others follow."""

import asyncio
import heapq


class Places:
    """A fixed number of places. Whoever finds none waits in line, the one who asked first at its head.

    A pair that must try again keeps the turn of its arrival, so that bad luck does not send it to the end.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._free = count
        self._line: list[tuple[int, asyncio.Future[None]]] = []

    @property
    def taken(self) -> int:
        """Places in use."""
        return self._count - self._free

    async def take(self, turn: int) -> None:
        """Wait for a place; `turn` is unique, the lowest is served first."""
        if self._free:
            self._free -= 1
            return
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._line, (turn, granted))
        try:
            await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():  # granted in the same instant
                self.give_back()
            raise

    def give_back(self) -> None:
        """Hand the place to the next in line, if there is one."""
        while self._line:
            _, granted = heapq.heappop(self._line)
            if not granted.done():
                granted.set_result(None)
                return
        self._free += 1
