"""Router: which endpoint gets the next request, with a circuit breaker for each. Times are handed in."""

import enum
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from speciarl.verdict import Reason, Unscorable
from speciarl.verifier_server.client.chat_batch import ChatBatcher
from speciarl.verifier_server.client.http import Client, Failure
from speciarl.verifier_server.stats import Stats

LONGEST_SILENCE_S = 300.0
"""A server that asks for a longer silence is asked again after this, so that no slip of its clock shuts it for good."""
EJECT_AFTER = 5
"""Failures in a row after which an endpoint gets no more requests until a health check succeeds."""
FIRST_CHECK_S = 0.25
"""Pause after the first failed check or trial; doubles with each one, up to the interval of the health checks."""


class State(enum.StrEnum):
    """The circuit breaker of an endpoint. `docs/judge_pool.md` shows the transitions."""

    HEALTHY = "healthy"
    """Takes requests (closed)."""
    EJECTED = "ejected"
    """Takes none, until a health check succeeds or the silence that it asked for is over (open)."""
    TRIAL = "trial"
    """Takes one request at a time, until one succeeds (half-open)."""


@dataclass(frozen=True)
class EndpointStats:
    """One endpoint for a person or a monitor to see."""

    url: str
    state: State
    in_flight: int
    """Requests sent and not answered yet."""
    attempts: int
    """Requests sent since the start."""
    failed: int
    """Of these, the ones that failed for a transient reason."""
    last_failure: str
    """What the last failure said, in one line; empty when there was none."""


@dataclass(eq=False)
class Endpoint:
    """One server and what we know of it. Times are seconds on the caller's clock."""

    client: Client
    chat_batcher: ChatBatcher | None = None
    """Where the server takes several chats in one HTTP request."""
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
    """What the last failure said."""
    status: State = State.HEALTHY
    """The state, but for a silence that it asked for."""
    silent_until: float = 0.0
    """It asked not to be called before (Retry-After); until then it counts as ejected."""
    check_at: float | None = None
    """When its health is to be checked next; None while there is no reason to. Always given with status EJECTED."""
    last_used: int = 0
    """Position in the order of use, so that equal endpoints take turns."""
    trial: "Attempt | None" = None
    """The one request that an endpoint on trial has in flight."""

    async def chat(self, body: Mapping[str, Any], alone: bool) -> object | Failure:
        """See `Client.chat`; `alone`: in an HTTP request of its own."""
        way = self.client if alone or self.chat_batcher is None else self.chat_batcher
        return await way.chat(body)

    def state(self, now: float) -> State:
        """The state at a moment."""
        return State.EJECTED if self.silent_until > now else self.status

    def silent(self, now: float) -> bool:
        """Whether it takes no requests for a while just because it asked for that, and will by itself."""
        return self.silent_until > now and self.status is State.TRIAL

    def stats(self, now: float) -> EndpointStats:
        """What is shown of it."""
        said = self.last_failure.detail if self.last_failure else ""
        return EndpointStats(self.client.url, self.state(now), self.in_flight, self.attempts, self.failed, said)

    def takes_requests(self, now: float) -> bool:
        """Whether a request may be sent now."""
        state = self.state(now)
        return state is State.HEALTHY or (state is State.TRIAL and self.trial is None)


@dataclass(eq=False)
class Attempt:
    """One request that is on its way."""

    endpoint: Endpoint


class Router:
    """Least-loaded choice among the endpoints that take requests, and the rules by which their states change.

    Without ejection a dead endpoint, which fails at once and so never has load, would attract every request.
    """

    def __init__(self, endpoints: Sequence[Endpoint], check_interval_s: float, stats: Stats) -> None:
        """`check_interval_s` is the longest pause between two checks of an ejected endpoint, in seconds.

        Ejections and returns are counted in `stats`.
        """
        self.endpoints = tuple(endpoints)
        self.listeners: list[Callable[[], None]] = []
        """Called after each change that may matter to those who wait: an endpoint is to be checked, or takes
        requests again."""
        self._stats = stats
        self._check_interval_s = check_interval_s
        self._uses = 0

    def pick(self, now: float, avoid: Collection[Endpoint] = ()) -> Endpoint | None:
        """The endpoint to use next, one outside `avoid` when there is one; None when none takes requests.

        A trial comes first: it is how an endpoint returns. Then the least loaded.
        """
        usable = [endpoint for endpoint in self.endpoints if endpoint.takes_requests(now)]

        def rank(endpoint: Endpoint) -> tuple[bool, bool, int, int]:
            on_trial = endpoint.status is State.TRIAL
            return endpoint in avoid, not on_trial, endpoint.in_flight, endpoint.last_used

        return min(usable, key=rank, default=None)

    def opens_at(self, now: float) -> float | None:
        """When the first silence that an endpoint asked for is over; None when there is none."""
        return min((endpoint.silent_until for endpoint in self.endpoints if endpoint.silent(now)), default=None)

    def all_silent(self, now: float) -> bool:
        """Whether nothing but time will help: each endpoint asked not to be called."""
        return all(endpoint.silent(now) for endpoint in self.endpoints)

    def outage(self, now: float) -> Unscorable | None:
        """Why no endpoint takes requests; None when one does."""
        if any(endpoint.takes_requests(now) for endpoint in self.endpoints):
            return None
        broken = [endpoint for endpoint in self.endpoints if not endpoint.silent(now)]
        if not broken:
            first = min(self.endpoints, key=lambda endpoint: endpoint.silent_until)
            pause_s = first.silent_until - now
            return Unscorable(Reason.OVERLOADED, f"{first.client.url} asked not to be called for {pause_s:.0f} s")
        last = broken[0].last_failure or Unscorable(Reason.CONNECTION, f"{broken[0].client.url} is ejected")
        away = f"{len(broken)} of {len(self.endpoints)} endpoints are ejected; last: {last.detail}"
        return Unscorable(last.reason, away)

    def begin(self, endpoint: Endpoint) -> Attempt:
        """A request is being sent. Hand the result to exactly one of `succeed`, `fail` and `withdraw`."""
        self._uses += 1
        endpoint.last_used = self._uses
        endpoint.in_flight += 1
        endpoint.attempts += 1
        sent = Attempt(endpoint)
        if endpoint.status is State.TRIAL and endpoint.trial is None:
            endpoint.trial = sent
        return sent

    def succeed(self, sent: Attempt, now: float) -> None:
        """The server replied, be it to refuse a bad request: that says nothing about the server's health."""
        endpoint = sent.endpoint
        self._end(sent)
        endpoint.failures = endpoint.failed_trials = 0
        endpoint.check_at = None
        if endpoint.status is State.HEALTHY:
            return
        endpoint.trial = None  # a reply to an earlier request has settled what it was to show
        if endpoint.silent_until > now:  # sent before it asked for silence, which is kept
            endpoint.status = State.TRIAL
        else:
            endpoint.status = State.HEALTHY
            self._stats.returns += 1
        self._notify()

    def fail(self, sent: Attempt, now: float, failure: Failure) -> None:
        """The request failed for a transient reason."""
        endpoint = sent.endpoint
        was_trial = endpoint.trial is sent
        self._end(sent)
        endpoint.failed += 1
        endpoint.last_failure = failure.unscorable
        if failure.retry_after_s:
            until = now + min(failure.retry_after_s, LONGEST_SILENCE_S)
            endpoint.silent_until = max(endpoint.silent_until, until)
            if endpoint.status is State.HEALTHY:
                self._eject(endpoint, State.TRIAL)
        if not failure.busy:  # being busy is no reason to eject it, nor to check its health
            endpoint.failures += 1
            if was_trial:
                self._postpone(endpoint, now)
            elif endpoint.status is State.HEALTHY:
                endpoint.check_at = now if endpoint.check_at is None else endpoint.check_at
                if endpoint.failures >= EJECT_AFTER:
                    self._eject(endpoint, State.EJECTED)
        self._notify()

    def withdraw(self, sent: Attempt) -> None:
        """The request was given up before its reply; nothing was learnt."""
        was_trial = sent.endpoint.trial is sent
        self._end(sent)
        if was_trial:
            self._notify()

    def due(self, now: float) -> list[Endpoint]:
        """The endpoints whose health is to be checked now."""
        return [e for e in self.endpoints if e.check_at is not None and e.check_at <= now]

    def next_check_at(self) -> float | None:
        """When the next check is due; None while there is no reason for one."""
        return min((e.check_at for e in self.endpoints if e.check_at is not None), default=None)

    def checked(self, endpoint: Endpoint, now: float, failure: Failure | None) -> None:
        """A health check came back."""
        if endpoint.check_at is None:
            return  # a request succeeded meanwhile, which says more
        if failure is None:
            endpoint.check_at = None
            endpoint.status = State.HEALTHY if endpoint.status is State.HEALTHY else State.TRIAL
        else:
            endpoint.last_failure = failure.unscorable
            self._eject(endpoint, State.EJECTED)
            self._postpone(endpoint, now)
        self._notify()

    def _end(self, sent: Attempt) -> None:
        sent.endpoint.in_flight -= 1
        if sent.endpoint.trial is sent:
            sent.endpoint.trial = None

    def _eject(self, endpoint: Endpoint, status: State) -> None:
        self._stats.ejections += endpoint.status is State.HEALTHY
        endpoint.status = status

    def _postpone(self, endpoint: Endpoint, now: float) -> None:
        """No trial until a later check succeeds."""
        endpoint.status = State.EJECTED
        endpoint.check_at = now + min(FIRST_CHECK_S * 2.0 ** min(endpoint.failed_trials, 20), self._check_interval_s)
        endpoint.failed_trials += 1

    def _notify(self) -> None:
        for listener in self.listeners:
            listener()
