"""Dispatcher: sends a request body and returns the parsed reply, with admission control, retries and a deadline."""

import asyncio
import contextlib
import heapq
import random
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from speciarl.utils.deadline import within
from speciarl.verdict import Reason, Unscorable
from speciarl.verifier_server.client.http import Failure
from speciarl.verifier_server.client.router import LONGEST_RETRY_AFTER_S, Endpoint, Router
from speciarl.verifier_server.config import VerifierConfig
from speciarl.verifier_server.stats import Stats


class PrioritySemaphore:
    """Semaphore whose waiters are served by priority, the lowest number first.

    A retry keeps the number of its first arrival, so that a failure does not send its pair to the end of the queue;
    `asyncio.Semaphore` serves waiters in the order of `acquire`.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._free = count
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []

    @property
    def held(self) -> int:
        """Slots in use."""
        return self._count - self._free

    async def acquire(self, priority: int) -> None:
        """Wait for a slot; `priority` is unique, since futures cannot be compared."""
        if self._free:
            self._free -= 1
            return
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiters, (priority, granted))
        try:
            await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():  # cancelled after the grant: pass the slot on
                self.release()
            raise

    def release(self) -> None:
        """Hand the slot to the next waiter, if there is one."""
        while self._waiters:
            _, granted = heapq.heappop(self._waiters)
            if not granted.done():  # else its waiter was cancelled
                granted.set_result(None)
                return
        self._free += 1


T = TypeVar("T")
Read = Callable[[object], T | Unscorable]
"""Reads a parsed reply; Unscorable(malformed or off_label) for one that makes no sense."""

LONGEST_BACKOFF_S = 15.0


class Dispatcher:
    """Sends requests, at most `max_concurrency` in flight, each to the endpoint that the router picks."""

    def __init__(self, config: VerifierConfig, router: Router, stats: Stats, chance: random.Random) -> None:
        self.router = router
        self._config = config
        self._stats = stats
        self._chance = chance
        self._slots = PrioritySemaphore(config.max_concurrency)
        self._changed = asyncio.Event()
        self.loading_until = 0.0
        """Until then, on the loop's clock, HTTP 503 to a pinned request costs no retry: the server still loads."""
        self._arrivals = 0
        self._admitted = self._sending = 0
        router.listeners.append(self._wake)

    @property
    def waiting(self) -> int:
        """Pairs without a slot: in the local queue, or in backoff between two attempts."""
        return self._admitted - self._sending

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

        A transient failure, and a reply that makes no sense, is retried on another endpoint when there is one; while
        none takes requests, the pair waits for the first to return. `only` pins the request to one endpoint, whatever
        its state. `pairs`: number of pairs in the request.
        """
        config = self._config
        # Admission control. With a slot free the pair is admitted, however many others are in backoff.
        if self._slots.held >= config.max_concurrency and self.waiting + pairs > config.max_waiting:
            self._stats.rejected += pairs
            return Unscorable(
                Reason.OVERLOADED, f"the local queue is full (max_waiting={config.max_waiting}); ask again later"
            )
        within_s = config.total_deadline_s if deadline_s is None else deadline_s
        clock = asyncio.get_running_loop().time
        so_far = _Attempts(clock() + within_s)
        self._admitted += pairs
        try:
            return await within(within_s, self._ask(body, read, only, so_far, pairs))
        except TimeoutError:
            return so_far.timed_out(clock(), within_s, self.router.outage(clock()))
        finally:
            self._admitted -= pairs

    async def _ask(
        self,
        body: Mapping[str, Any],
        read: Read[T],
        only: Endpoint | None,
        so_far: "_Attempts",
        pairs: int,
    ) -> T | Unscorable:
        clock = asyncio.get_running_loop().time
        self._arrivals += 1
        priority = self._arrivals
        tried: set[Endpoint] = set()
        while True:
            queued_at = so_far.queued_since = clock()
            await self._slots.acquire(priority)
            try:
                # The slot is kept while no endpoint takes requests, so that the pair keeps its place.
                endpoint = only or await self._wait_for_endpoint(tried, so_far.expires)
                so_far.queued_since = None
                so_far.queue_s += clock() - queued_at
                self._stats.observe_queue(clock() - queued_at)
                if isinstance(endpoint, Unscorable):
                    return endpoint
                self._stats.retries += so_far.attempts > 0
                so_far.attempts += 1
                # A retry gets an HTTP request of its own: of chats that share one, any may have caused the failure.
                alone = only is not None or so_far.attempts > 1
                self._sending += pairs
                try:
                    outcome = await self._exchange(endpoint, body, read, alone)
                finally:
                    self._sending -= pairs
            finally:
                self._slots.release()
            if not isinstance(outcome, Failure):
                return outcome
            so_far.last = outcome.unscorable
            # The pair cannot be the cause of a refused connection or an overload, so they are waited out at no cost.
            waited_out = outcome.independent_of_request
            if only is not None:
                waited_out = outcome.busy or (outcome.status == 503 and clock() < self.loading_until)
            so_far.budget_used += not waited_out
            if not outcome.transient or so_far.budget_used > self._config.retries:
                return outcome.unscorable
            tried.add(endpoint)
            if len(tried) == len(self.router.endpoints):
                tried.clear()
            pause_s = self._backoff_s(so_far.attempts)
            if only is not None and outcome.retry_after_s:  # else the router keeps the server from being asked
                pause_s = max(pause_s, min(outcome.retry_after_s, LONGEST_RETRY_AFTER_S))
            if clock() + pause_s >= so_far.expires:
                return outcome.unscorable  # more specific than a time-out after the backoff
            self._stats.backoff_seconds += pause_s
            await asyncio.sleep(pause_s)

    async def _exchange(
        self, endpoint: Endpoint, body: Mapping[str, Any], read: Read[T], alone: bool
    ) -> T | Unscorable | Failure:
        """Send one request, in an HTTP request of its own if `alone`, and record the outcome in router and counters."""
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
            self._stats.observe_attempt(clock() - sent_at)
        outcome = reply if isinstance(reply, Failure) else self._read_reply(endpoint, reply, read)
        # An off-label reply is no failure of the endpoint: the pair may be the cause.
        if isinstance(outcome, Failure) and outcome.transient and outcome.unscorable.reason is not Reason.OFF_LABEL:
            self.router.fail(sent, clock(), outcome)
        else:
            self.router.succeed(sent, clock())
        return outcome

    def _read_reply(self, endpoint: Endpoint, reply: object, read: Read[T]) -> T | Unscorable | Failure:
        """The reading, or a transient Failure for a reply that makes no sense: another judge may do better."""
        self._stats.add_usage(reply)
        reading = read(reply)
        if isinstance(reading, Unscorable) and reading.reason in (Reason.MALFORMED, Reason.OFF_LABEL):
            named = Unscorable(reading.reason, f"{endpoint.client.url}: {reading.detail}")
            return Failure(named, transient=True)
        return reading

    async def _wait_for_endpoint(self, avoid: Collection[Endpoint], expires: float) -> Endpoint | Unscorable:
        """Wait for an endpoint that takes requests; Unscorable when the Retry-After of all ends past the deadline."""
        clock = asyncio.get_running_loop().time
        while True:
            now = clock()
            endpoint = self.router.pick(now, avoid)
            if endpoint is not None:
                return endpoint
            next_retry_at = self.router.next_retry_at(now)
            if next_retry_at is not None and next_retry_at >= expires and self.router.all_deferred(now):
                outage = self.router.outage(now)
                assert outage is not None
                return outage
            with contextlib.suppress(TimeoutError):
                await within(None if next_retry_at is None else next_retry_at - now, self._changed.wait())

    def _backoff_s(self, attempts: int) -> float:
        """Exponential backoff in seconds, with full jitter: spreads the retries of pairs that failed together."""
        longest_s = self._config.backoff_s * 2.0 ** min(attempts - 1, 20)
        return self._chance.uniform(0.0, min(longest_s, LONGEST_BACKOFF_S))

    def _wake(self) -> None:
        """Wake every request that waits for an endpoint."""
        self._changed.set()
        self._changed.clear()  # those that wait are woken already; later ones wait for the next change


class _Attempts:
    """Attempts at one request so far, for the retry budget and the message of a missed deadline."""

    def __init__(self, expires: float) -> None:
        self.expires = expires
        self.attempts = 0
        self.budget_used = 0
        """Attempts that count towards `retries`."""
        self.queue_s = 0.0
        self.queued_since: float | None = None
        self.last: Unscorable | None = None

    def timed_out(self, now: float, deadline_s: float, outage: Unscorable | None) -> Unscorable:
        """Why there is no verdict within the deadline; names an outage of all endpoints as such."""
        queue_s = self.queue_s + (now - self.queued_since if self.queued_since is not None else 0.0)
        cause = outage if outage is not None and self.queued_since is not None else self.last
        last = f"; last: {cause.detail}" if cause else ""
        return Unscorable(
            outage.reason if outage is not None and cause is outage else Reason.TIMEOUT,
            f"no verdict within {deadline_s:g} s ({self.attempts} attempts, {queue_s:.1f} s in the local queue){last}",
        )
