"""Sender: one request to one endpoint, and a copy to another one when the reply is unusually late (hedging)."""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from speciarl.verdict import Reason, Unscorable
from speciarl.verifier_server.client.http import Failure
from speciarl.verifier_server.client.in_flight import Flight
from speciarl.verifier_server.client.router import Endpoint, Router
from speciarl.verifier_server.stats import Stats

COPIES = 3
"""Requests in flight for one pair at most, the first included."""
_TIMES_P95 = 3.0
_WINDOW = 256
_FEWEST = 20
_BURST = 8.0
"""Copies that may be sent before the share counts."""


class Hedging:
    """How long to wait for a reply before a copy is sent, and whether one more copy may be."""

    def __init__(self, share: float, floor_s: float) -> None:
        """`share`: copies per request in the long run, 0 for none. `floor_s`: never copy earlier than this."""
        self._share = share
        self._floor_s = floor_s
        self._recent: deque[float] = deque(maxlen=_WINDOW)
        self._stale = 0
        self._patience_s: float | None = None
        self._ration = _BURST if share > 0 else 0.0

    @property
    def patience_s(self) -> float | None:
        """Seconds after which a request is oddly late; None while too few replies are known, or for no copies."""
        return self._patience_s

    def replied(self, seconds: float) -> None:
        """A good reply took this long."""
        if self._share <= 0:
            return
        self._recent.append(seconds)
        self._ration = min(self._ration + self._share, _BURST)
        self._stale += 1
        if self._stale >= _FEWEST:
            self._stale = 0
            ordered = sorted(self._recent)
            self._patience_s = max(_TIMES_P95 * ordered[int(0.95 * len(ordered))], self._floor_s)

    def allow(self) -> bool:
        """Take one copy from the ration; False when it is used up."""
        if self._ration < 1.0:
            return False
        self._ration -= 1.0
        return True


T = TypeVar("T")
Read = Callable[[object], T | Unscorable]


class Sender:
    """Sends requests and tells the router, the hedging and the counters what became of them."""

    def __init__(self, router: Router, hedging: Hedging, stats: Stats) -> None:
        self._router = router
        self._hedging = hedging
        self._stats = stats

    async def send(
        self,
        endpoint: Endpoint,
        body: Mapping[str, Any],
        read: Read[T],
        flight: Flight | None,
        copies: int = COPIES,
        alone: bool = False,
    ) -> T | Unscorable | Failure:
        """The first reply that can be read; Failure when there is none, or none that makes sense.

        At most `copies` requests are in flight at once; those that lose the race are broken off. The first may share
        an HTTP request with others, unless it is to go `alone`; the copies never do.
        """
        patience_s = self._hedging.patience_s
        if patience_s is None or copies < 2:
            return await self._exchange(endpoint, body, read, flight, alone)
        clock = asyncio.get_running_loop().time
        racing = {asyncio.create_task(self._exchange(endpoint, body, read, flight, alone)): endpoint}
        try:
            while True:
                may_copy = len(racing) < copies
                done, _ = await asyncio.wait(
                    racing, timeout=patience_s if may_copy else None, return_when=asyncio.FIRST_COMPLETED
                )
                if not done:
                    late = set(racing.values())
                    for one in late:
                        self._router.suspect(one, clock())
                    other = self._router.pick(clock(), avoid=late) or endpoint
                    if all(one.ejected for one in late) or self._hedging.allow():
                        self._stats.hedges += 1
                        racing[asyncio.create_task(self._exchange(other, body, read, flight, alone=True))] = other
                outcome: T | Unscorable | Failure
                for task in done:
                    del racing[task]
                    outcome = task.result()
                    if not racing or not isinstance(outcome, Failure) or not outcome.passing:
                        return outcome
        finally:
            for task in racing:
                task.cancel()
            if racing:
                await asyncio.wait(racing)

    async def _exchange(
        self, endpoint: Endpoint, body: Mapping[str, Any], read: Read[T], flight: Flight | None, alone: bool
    ) -> T | Unscorable | Failure:
        clock = asyncio.get_running_loop().time
        sent_at = clock()
        self._stats.attempts += 1
        sent = self._router.begin(endpoint)
        if flight is not None:
            flight.depart()
        try:
            reply = await endpoint.chat(body, alone)
        except asyncio.CancelledError:
            self._router.withdraw(sent)
            raise
        finally:
            if flight is not None:
                flight.arrive()
            took_s = clock() - sent_at
            self._stats.note_exchange(took_s)
        outcome = reply if isinstance(reply, Failure) else self._understand(endpoint, reply, read)
        if isinstance(outcome, Failure) and outcome.passing and outcome.unscorable.reason is not Reason.OFF_LABEL:
            self._router.fail(sent, clock(), outcome)
        else:
            self._router.succeed(sent)
            self._hedging.replied(took_s)
        if flight is not None and not isinstance(outcome, Failure):
            flight.settle()
        return outcome

    def _understand(self, endpoint: Endpoint, reply: object, read: Read[T]) -> T | Unscorable | Failure:
        """The reading, or Failure for a reply that makes no sense: another judge may do better."""
        self._stats.note_usage(reply)
        reading = read(reply)
        if isinstance(reading, Unscorable) and reading.reason in (Reason.MALFORMED, Reason.OFF_LABEL):
            named = Unscorable(reading.reason, f"{endpoint.client.url}: {reading.detail}")
            return Failure(named, passing=True)
        return reading
