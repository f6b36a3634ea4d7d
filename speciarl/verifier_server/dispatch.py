"""From a request body to a reading of the reply: local queue, choice of endpoint, retries."""

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from speciarl.verdict import Reason, Unscorable
from speciarl.verifier_server.client import Failure
from speciarl.verifier_server.config import VerifierConfig
from speciarl.verifier_server.routing import Endpoint, Router
from speciarl.verifier_server.stats import Stats

T = TypeVar("T")


class Dispatcher:
    """Sends requests, at most `max_concurrency` at once, each to the endpoint that can best take it."""

    def __init__(self, config: VerifierConfig, router: Router, stats: Stats, chance: random.Random) -> None:
        self.router = router
        self._config = config
        self._stats = stats
        self._chance = chance
        self._places = asyncio.Semaphore(config.max_concurrency)

    async def ask(
        self,
        body: Mapping[str, Any],
        read: Callable[[object], T | Unscorable],
        only: Endpoint | None = None,
        deadline_s: float | None = None,
    ) -> T | Unscorable:
        """Post a chat completion and read the reply, within `deadline_s` (`total_deadline_s` when not given).
        Raises only CancelledError.

        A passing failure, and a reply that makes no sense, is tried again on another endpoint when there is
        one. `only` pins the request to one endpoint.
        """
        trail = _Trail()
        within_s = self._config.total_deadline_s if deadline_s is None else deadline_s
        try:
            return await asyncio.wait_for(self._ask(body, read, only, trail, within_s), within_s)
        except asyncio.TimeoutError:
            return Unscorable(Reason.TIMEOUT, trail.describe(within_s))

    async def _ask(
        self,
        body: Mapping[str, Any],
        read: Callable[[object], T | Unscorable],
        only: Endpoint | None,
        trail: "_Trail",
        within_s: float,
    ) -> T | Unscorable:
        clock = asyncio.get_running_loop().time
        expires = clock() + within_s
        tried: set[Endpoint] = set()
        pause_s = 0.0
        while True:
            if trail.last is not None and clock() + pause_s >= expires:
                return trail.last
            self._stats.backoff_seconds += pause_s
            await asyncio.sleep(pause_s)
            if len(tried) == len(self.router.endpoints):
                tried.clear()
            sent = await self._send(body, only, tried, trail)
            if isinstance(sent, _Closed):
                pause_s = sent.for_s
                trail.last = trail.last or sent.as_unscorable()
                continue
            endpoint, reply = sent
            tried.add(endpoint)
            if isinstance(reply, Failure):
                trail.last = reply.unscorable
                if not reply.passing:
                    return reply.unscorable
            else:
                reading = read(reply)
                if not (isinstance(reading, Unscorable) and reading.reason is Reason.MALFORMED):
                    return reading
                trail.last = Unscorable(reading.reason, f"{endpoint.client.url}: {reading.detail}")
            if trail.attempts > self._config.retries:
                return trail.last
            pause_s = self._backoff_s(trail.attempts)

    async def _send(
        self, body: Mapping[str, Any], only: Endpoint | None, tried: set[Endpoint], trail: "_Trail"
    ) -> "tuple[Endpoint, object | Failure] | _Closed":
        """One attempt. The endpoint is chosen when its turn has come, by what is known then."""
        clock = asyncio.get_running_loop().time
        queued_at = clock()
        trail.queued_since = queued_at
        async with self._places:
            sent_at = clock()
            trail.queued_since = None
            trail.queue_s += sent_at - queued_at
            self._stats.queue_seconds += sent_at - queued_at
            endpoint = only or self.router.pick(sent_at, avoid=tried)
            closed_s = self.router.wait_s(endpoint, sent_at)
            if closed_s > 0:
                return _Closed(endpoint.client.url, closed_s)
            self._stats.attempts += 1
            self._stats.retries += trail.attempts > 0
            trail.attempts += 1
            self.router.begin(endpoint)
            failure: Failure | None = None
            try:
                reply = await endpoint.client.chat(body)
                failure = reply if isinstance(reply, Failure) else None
                return endpoint, reply
            finally:
                self.router.end(endpoint, clock(), failure)
                self._stats.judge_seconds += clock() - sent_at

    def _backoff_s(self, attempts: int) -> float:
        """Full jitter: spreads the retries of many pairs that failed in the same instant."""
        return self._chance.uniform(0.0, self._config.backoff_s * 2.0 ** (attempts - 1))


@dataclass(frozen=True)
class _Closed:
    """Every endpoint asked not to be called yet."""

    url: str
    for_s: float

    def as_unscorable(self) -> Unscorable:
        return Unscorable(Reason.OVERLOADED, f"{self.url} asked not to be called for {self.for_s:.0f} s")


class _Trail:
    """What happened to one request so far, for the message of a missed deadline."""

    def __init__(self) -> None:
        self.attempts = 0
        self.queue_s = 0.0
        self.queued_since: float | None = None
        self.last: Unscorable | None = None

    def describe(self, deadline_s: float) -> str:
        queue_s = self.queue_s
        if self.queued_since is not None:
            queue_s += asyncio.get_running_loop().time() - self.queued_since
        last = f"; last: {self.last.detail}" if self.last else ""
        return (
            f"no verdict within {deadline_s:g} s ({self.attempts} attempts, {queue_s:.1f} s in the local queue){last}"
        )
