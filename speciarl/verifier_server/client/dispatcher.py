"""Dispatcher: local queue, choice of an endpoint, retries; a request body in, a reading of the reply out."""

import asyncio
import contextlib
import heapq
import random
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from speciarl.utils.deadline import within
from speciarl.verdict import Reason, Unscorable
from speciarl.verifier_server.client.http import Failure
from speciarl.verifier_server.client.router import Endpoint, Router
from speciarl.verifier_server.config import VerifierConfig
from speciarl.verifier_server.stats import Stats


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


T = TypeVar("T")
Read = Callable[[object], T | Unscorable]
"""Reads a parsed reply; malformed or off_label where it makes no sense."""

LONGEST_BACKOFF_S = 15.0


class Dispatcher:
    """Sends requests, at most `max_concurrency` at once, each to the endpoint that can best take it."""

    def __init__(self, config: VerifierConfig, router: Router, stats: Stats, chance: random.Random) -> None:
        self.router = router
        self._config = config
        self._stats = stats
        self._chance = chance
        self._places = Places(config.max_concurrency)
        self._changed = asyncio.Event()
        self._turns = 0
        self._open = self._sending = 0
        router.listeners.append(self._pulse)

    @property
    def waiting(self) -> int:
        """Pairs in the local queue, those between two attempts included."""
        return self._open - self._sending

    async def ask(
        self,
        body: Mapping[str, Any],
        read: Read[T],
        only: Endpoint | None = None,
        deadline_s: float | None = None,
        pairs: int = 1,
    ) -> T | Unscorable:
        """Post a chat completion and read the reply, within `deadline_s` (`total_deadline_s` when not given). Raises
        only CancelledError.

        A passing failure, and a reply that makes no sense, is tried again on another endpoint when there is one;
        while none takes requests, the pair waits for the first to return. `only` pins the request to one
        endpoint, whatever its state. `pairs`: how many the request is about.
        """
        config = self._config
        if self._places.taken >= config.max_concurrency and self.waiting + pairs > config.max_waiting:
            self._stats.rejected += pairs
            return Unscorable(
                Reason.OVERLOADED, f"the local queue is full (max_waiting={config.max_waiting}); ask again later"
            )
        within_s = config.total_deadline_s if deadline_s is None else deadline_s
        clock = asyncio.get_running_loop().time
        trail = _Trail(clock() + within_s)
        self._open += pairs
        try:
            return await within(within_s, self._ask(body, read, only, trail, pairs))
        except TimeoutError:
            return trail.missed(clock(), within_s, self.router.outage(clock()))
        finally:
            self._open -= pairs

    async def _ask(
        self,
        body: Mapping[str, Any],
        read: Read[T],
        only: Endpoint | None,
        trail: "_Trail",
        pairs: int,
    ) -> T | Unscorable:
        clock = asyncio.get_running_loop().time
        self._turns += 1
        turn = self._turns
        tried: set[Endpoint] = set()
        while True:
            queued_at = trail.queued_since = clock()
            await self._places.take(turn)
            self._sending += pairs
            try:
                endpoint = only or await self._endpoint(tried, trail.expires)
                trail.queued_since = None
                trail.queue_s += clock() - queued_at
                self._stats.note_queue(clock() - queued_at)
                if isinstance(endpoint, Unscorable):
                    return endpoint
                self._stats.retries += trail.attempts > 0
                trail.attempts += 1
                # What failed in company, or took its server along, tries again without.
                alone = only is not None or trail.attempts > 1
                outcome = await self._exchange(endpoint, body, read, alone)
            finally:
                self._sending -= pairs
                self._places.give_back()
            if not isinstance(outcome, Failure):
                return outcome
            trail.last = outcome.unscorable
            # Refused connections and overload say nothing about the pair: they are waited out.
            trail.spent += only is not None or not outcome.blameless
            if not outcome.passing or trail.spent > self._config.retries:
                return outcome.unscorable
            tried.add(endpoint)
            if len(tried) == len(self.router.endpoints):
                tried.clear()
            pause_s = self._backoff_s(trail.attempts)
            if clock() + pause_s >= trail.expires:
                return outcome.unscorable
            self._stats.backoff_seconds += pause_s
            await asyncio.sleep(pause_s)

    async def _exchange(
        self, endpoint: Endpoint, body: Mapping[str, Any], read: Read[T], alone: bool
    ) -> T | Unscorable | Failure:
        """One request, in an HTTP request of its own if `alone`; router and counters hear what became of it."""
        clock = asyncio.get_running_loop().time
        sent_at = clock()
        self._stats.attempts += 1
        sent = self.router.begin(endpoint)
        try:
            reply = await endpoint.chat(body, alone)
        except asyncio.CancelledError:
            self.router.withdraw(sent)
            raise
        finally:
            self._stats.note_exchange(clock() - sent_at)
        outcome = reply if isinstance(reply, Failure) else self._understand(endpoint, reply, read)
        if isinstance(outcome, Failure) and outcome.passing and outcome.unscorable.reason is not Reason.OFF_LABEL:
            self.router.fail(sent, clock(), outcome)
        else:
            self.router.succeed(sent, clock())
        return outcome

    def _understand(self, endpoint: Endpoint, reply: object, read: Read[T]) -> T | Unscorable | Failure:
        """The reading, or Failure for a reply that makes no sense: another judge may do better."""
        self._stats.note_usage(reply)
        reading = read(reply)
        if isinstance(reading, Unscorable) and reading.reason in (Reason.MALFORMED, Reason.OFF_LABEL):
            named = Unscorable(reading.reason, f"{endpoint.client.url}: {reading.detail}")
            return Failure(named, passing=True)
        return reading

    async def _endpoint(self, avoid: Collection[Endpoint], expires: float) -> Endpoint | Unscorable:
        """The endpoint to send to, once one takes requests; Unscorable when all asked for silence till the deadline."""
        clock = asyncio.get_running_loop().time
        while True:
            now = clock()
            endpoint = self.router.pick(now, avoid)
            if endpoint is not None:
                return endpoint
            opens_at = self.router.opens_at(now)
            if opens_at is not None and opens_at >= expires and self.router.all_silent(now):
                outage = self.router.outage(now)
                assert outage is not None
                return outage
            with contextlib.suppress(TimeoutError):
                await within(None if opens_at is None else opens_at - now, self._changed.wait())

    def _backoff_s(self, attempts: int) -> float:
        """Full jitter: spreads the retries of many pairs that failed in the same instant."""
        longest_s = self._config.backoff_s * 2.0 ** min(attempts - 1, 20)
        return self._chance.uniform(0.0, min(longest_s, LONGEST_BACKOFF_S))

    def _pulse(self) -> None:
        """Wake all who wait for an endpoint."""
        self._changed.set()
        self._changed.clear()


class _Trail:
    """What happened to one request so far, for the message of a missed deadline."""

    def __init__(self, expires: float) -> None:
        self.expires = expires
        self.attempts = 0
        self.spent = 0
        """Attempts that count towards `retries`."""
        self.queue_s = 0.0
        self.queued_since: float | None = None
        self.last: Unscorable | None = None

    def missed(self, now: float, deadline_s: float, outage: Unscorable | None) -> Unscorable:
        """Why there is no verdict in time; an outage of all endpoints is named as such."""
        queue_s = self.queue_s + (now - self.queued_since if self.queued_since is not None else 0.0)
        cause = outage if outage is not None and self.queued_since is not None else self.last
        last = f"; last: {cause.detail}" if cause else ""
        return Unscorable(
            outage.reason if outage is not None and cause is outage else Reason.TIMEOUT,
            f"no verdict within {deadline_s:g} s ({self.attempts} attempts, {queue_s:.1f} s in the local queue){last}",
        )
