"""Router: picks the endpoint of the next request, with a circuit breaker for each. Times are passed in."""

import enum
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from speciarl.verdict import Reason, Unscorable
from speciarl.verifier_server.client.chat_batch import ChatBatcher
from speciarl.verifier_server.client.http import Client, Failure
from speciarl.verifier_server.stats import Stats

LONGEST_RETRY_AFTER_S = 300.0
"""Most seconds for which Retry-After is obeyed, so that a server whose clock is wrong is not ejected for good."""
EJECT_AFTER = 5
"""Failures in a row after which an endpoint gets no more requests until a health check succeeds."""
FIRST_CHECK_S = 0.25
"""Seconds from the first failed check or trial to the next check; doubles with each one, up to `health_interval_s`."""


class State(enum.StrEnum):
    """State of an endpoint's circuit breaker. `docs/judge_pool.md` shows the transitions."""

    HEALTHY = "healthy"
    """Takes requests (closed)."""
    EJECTED = "ejected"
    """Takes none, until a health check succeeds or its Retry-After is over (open)."""
    TRIAL = "trial"
    """Takes one request at a time, until one succeeds (half-open)."""


@dataclass(frozen=True)
class EndpointStats:
    """Statistics of one endpoint, for people and monitoring."""

    url: str
    state: State
    in_flight: int
    """Requests sent and not answered yet."""
    attempts: int
    """Requests sent since the start."""
    failed: int
    """Of these, the ones that failed for a transient reason."""
    last_failure: str
    """Message of the last failure, in one line; empty when there was none."""


@dataclass(eq=False)
class Endpoint:
    """One server, with its load and its circuit breaker. Times are seconds on the caller's clock."""

    client: Client
    chat_batcher: ChatBatcher | None = None
    """None where the server does not take several chats in one HTTP request."""
    in_flight: int = 0
    """Requests sent and not answered yet."""
    attempts: int = 0
    """Requests sent since the start."""
    failed: int = 0
    """Of these, the ones that failed for a transient reason."""
    failures: int = 0
    """Failures since the last success."""
    failed_trials: int = 0
    """Failed checks and trials since the last success."""
    last_failure: Unscorable | None = None
    """The last failure, of a request or a health check."""
    status: State = State.HEALTHY
    """The state, but for Retry-After: see `state`."""
    retry_at: float = 0.0
    """Earliest time of a request, as asked for by Retry-After; until then the endpoint counts as ejected."""
    check_at: float | None = None
    """Time of the next health check; None while none is scheduled. Always given with status EJECTED."""
    last_used: int = 0
    """Number of the last request in the order of all, so that equally loaded endpoints take turns."""
    trial: "Attempt | None" = None
    """The trial request in flight; an endpoint on trial takes one at a time."""

    async def chat(self, body: Mapping[str, Any], alone: bool) -> object | Failure:
        """See `Client.chat`; `alone`: in an HTTP request of its own."""
        way = self.client if alone or self.chat_batcher is None else self.chat_batcher
        return await way.chat(body)

    def state(self, now: float) -> State:
        """The state at time `now`, Retry-After included."""
        return State.EJECTED if self.retry_at > now else self.status

    def deferred(self, now: float) -> bool:
        """Whether Retry-After alone keeps it from taking requests, so that it needs no health check."""
        return self.retry_at > now and self.status is State.TRIAL

    def stats(self, now: float) -> EndpointStats:
        """Statistics at time `now`."""
        said = self.last_failure.detail if self.last_failure else ""
        return EndpointStats(self.client.url, self.state(now), self.in_flight, self.attempts, self.failed, said)

    def takes_requests(self, now: float) -> bool:
        """Whether a request may be sent at time `now`."""
        state = self.state(now)
        return state is State.HEALTHY or (state is State.TRIAL and self.trial is None)


@dataclass(eq=False)
class Attempt:
    """One request in flight."""

    endpoint: Endpoint


class Router:
    """Least-loaded choice among the endpoints that take requests, and the transitions of their circuit breakers.

    Without ejection a dead endpoint, which fails at once and so never has load, would attract every request.
    """

    def __init__(self, endpoints: Sequence[Endpoint], check_interval_s: float, stats: Stats) -> None:
        """`check_interval_s` is the longest pause between two checks of an ejected endpoint, in seconds.

        Ejections and returns are counted in `stats`.
        """
        self.endpoints = tuple(endpoints)
        self.listeners: list[Callable[[], None]] = []
        """Called after each change that may end a wait: an endpoint is to be checked, or takes requests again."""
        self._stats = stats
        self._check_interval_s = check_interval_s
        self._uses = 0

    def pick(self, now: float, avoid: Collection[Endpoint] = ()) -> Endpoint | None:
        """The endpoint to use next, one outside `avoid` when there is one; None when none takes requests.

        Half-open endpoints come first, as only a trial request closes their circuit; then the least loaded.
        """
        usable = [endpoint for endpoint in self.endpoints if endpoint.takes_requests(now)]

        def rank(endpoint: Endpoint) -> tuple[bool, bool, int, int]:
            on_trial = endpoint.status is State.TRIAL
            return endpoint in avoid, not on_trial, endpoint.in_flight, endpoint.last_used

        return min(usable, key=rank, default=None)

    def next_retry_at(self, now: float) -> float | None:
        """Time at which the first Retry-After is over; None when none is pending."""
        return min((endpoint.retry_at for endpoint in self.endpoints if endpoint.deferred(now)), default=None)

    def all_deferred(self, now: float) -> bool:
        """Whether Retry-After is all that keeps every endpoint from taking requests."""
        return all(endpoint.deferred(now) for endpoint in self.endpoints)

    def outage(self, now: float) -> Unscorable | None:
        """Why no endpoint takes requests; None when one does."""
        if any(endpoint.takes_requests(now) for endpoint in self.endpoints):
            return None
        broken = [endpoint for endpoint in self.endpoints if not endpoint.deferred(now)]
        if not broken:
            first = min(self.endpoints, key=lambda endpoint: endpoint.retry_at)
            pause_s = first.retry_at - now
            return Unscorable(Reason.OVERLOADED, f"{first.client.url} asked not to be called for {pause_s:.0f} s")
        last = broken[0].last_failure or Unscorable(Reason.CONNECTION, f"{broken[0].client.url} is ejected")
        away = f"{len(broken)} of {len(self.endpoints)} endpoints are ejected; last: {last.detail}"
        return Unscorable(last.reason, away)

    def begin(self, endpoint: Endpoint) -> Attempt:
        """Record that a request is sent. Pass the result to exactly one of `succeed`, `fail` and `withdraw`."""
        self._uses += 1
        endpoint.last_used = self._uses
        endpoint.in_flight += 1
        endpoint.attempts += 1
        sent = Attempt(endpoint)
        if endpoint.status is State.TRIAL and endpoint.trial is None:
            endpoint.trial = sent
        return sent

    def succeed(self, sent: Attempt, now: float) -> None:
        """Record a reply, also one that refuses a bad request: the server is up, and its circuit breaker closes."""
        endpoint = sent.endpoint
        self._end(sent)
        endpoint.failures = endpoint.failed_trials = 0
        endpoint.check_at = None
        if endpoint.status is State.HEALTHY:
            return
        endpoint.trial = None  # the reply, even if to an earlier request, shows what the trial was to show
        if endpoint.retry_at > now:  # sent before the Retry-After, which stays in force
            endpoint.status = State.TRIAL
        else:
            endpoint.status = State.HEALTHY
            self._stats.returns += 1
        self._notify()

    def fail(self, sent: Attempt, now: float, failure: Failure) -> None:
        """Record a transient failure, which may eject the endpoint."""
        endpoint = sent.endpoint
        was_trial = endpoint.trial is sent
        self._end(sent)
        endpoint.failed += 1
        endpoint.last_failure = failure.unscorable
        if failure.retry_after_s:
            until = now + min(failure.retry_after_s, LONGEST_RETRY_AFTER_S)
            endpoint.retry_at = max(endpoint.retry_at, until)
            if endpoint.status is State.HEALTHY:
                self._eject(endpoint, State.TRIAL)
        if not failure.busy:  # a busy server is up: no reason to eject it or to check its health
            endpoint.failures += 1
            if was_trial:
                self._schedule_check(endpoint, now)
            elif endpoint.status is State.HEALTHY:
                # The first failure schedules a check at once, to find a dead server before it fails more requests.
                endpoint.check_at = now if endpoint.check_at is None else endpoint.check_at
                if endpoint.failures >= EJECT_AFTER:
                    self._eject(endpoint, State.EJECTED)
        self._notify()

    def withdraw(self, sent: Attempt) -> None:
        """Record that a request was cancelled before its reply: neither a success nor a failure."""
        was_trial = sent.endpoint.trial is sent
        self._end(sent)
        if was_trial:  # the next trial request may be sent
            self._notify()

    def due(self, now: float) -> list[Endpoint]:
        """The endpoints whose health is to be checked now."""
        return [e for e in self.endpoints if e.check_at is not None and e.check_at <= now]

    def next_check_at(self) -> float | None:
        """Time of the next health check; None while none is scheduled."""
        return min((e.check_at for e in self.endpoints if e.check_at is not None), default=None)

    def checked(self, endpoint: Endpoint, now: float, failure: Failure | None) -> None:
        """Record the result of a health check; `failure` None: it succeeded."""
        if endpoint.check_at is None:
            return  # a request succeeded meanwhile, which is stronger evidence
        if failure is None:
            endpoint.check_at = None
            # Half-open at most: a server may pass its health check and still fail requests.
            endpoint.status = State.HEALTHY if endpoint.status is State.HEALTHY else State.TRIAL
        else:
            endpoint.last_failure = failure.unscorable
            self._eject(endpoint, State.EJECTED)
            self._schedule_check(endpoint, now)
        self._notify()

    def _end(self, sent: Attempt) -> None:
        sent.endpoint.in_flight -= 1
        if sent.endpoint.trial is sent:
            sent.endpoint.trial = None

    def _eject(self, endpoint: Endpoint, status: State) -> None:
        self._stats.ejections += endpoint.status is State.HEALTHY
        endpoint.status = status

    def _schedule_check(self, endpoint: Endpoint, now: float) -> None:
        """Eject until a later check succeeds; the pauses between checks grow exponentially."""
        endpoint.status = State.EJECTED
        endpoint.check_at = now + min(FIRST_CHECK_S * 2.0 ** min(endpoint.failed_trials, 20), self._check_interval_s)
        endpoint.failed_trials += 1

    def _notify(self) -> None:
        for listener in self.listeners:
            listener()
