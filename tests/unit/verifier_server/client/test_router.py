"""Which endpoint comes next, and how endpoints change their state."""

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from speciarl.verdict import Reason, Unscorable
from speciarl.verifier_server.client.http import Failure
from speciarl.verifier_server.client.router import (
    EJECT_AFTER,
    FIRST_CHECK_S,
    LONGEST_RETRY_AFTER_S,
    Attempt,
    Endpoint,
    Router,
    State,
)
from speciarl.verifier_server.stats import Stats

BROKEN = Failure(Unscorable(Reason.CONNECTION, "broken"), transient=True)
INTERVAL_S = 5.0


class FakeClient:
    """Routing calls no client; it only names it."""

    url = "http://fake"


def router(count: int) -> Router:
    client: Any = FakeClient()
    return Router([Endpoint(client) for _ in range(count)], INTERVAL_S, Stats())


def busy(retry_after_s: float | None = None) -> Failure:
    return Failure(Unscorable(Reason.OVERLOADED), transient=True, retry_after_s=retry_after_s, status=429)


def fail(pool: Router, endpoint: Endpoint, now: float, failure: Failure = BROKEN, times: int = 1) -> None:
    for _ in range(times):
        pool.fail(pool.begin(endpoint), now, failure)


def test_equal_endpoints_take_turns() -> None:
    pool = router(3)
    order = []
    for _ in range(6):
        endpoint = pool.pick(0.0)
        assert endpoint is not None
        pool.succeed(pool.begin(endpoint), 0.0)
        order.append(pool.endpoints.index(endpoint))
    assert order == [0, 1, 2, 0, 1, 2]


def test_the_least_loaded_is_chosen() -> None:
    pool = router(3)
    for index in (0, 0, 1, 2, 2):
        pool.begin(pool.endpoints[index])
    assert pool.pick(0.0) is pool.endpoints[1]


def test_the_first_failure_has_the_health_checked_at_once() -> None:
    pool = router(2)
    bad, good = pool.endpoints
    told: list[bool] = []
    pool.listeners.append(lambda: told.append(True))
    fail(pool, bad, 100.0)
    assert (bad.state(100.0), pool.due(100.0), told) == (State.HEALTHY, [bad], [True])
    assert pool.pick(100.0, avoid={good}) is bad
    pool.checked(bad, 100.1, None)
    assert (bad.state(100.1), pool.due(200.0)) == (State.HEALTHY, [])
    fail(pool, bad, 101.0)
    assert pool.due(101.0) == [bad]


def test_a_dead_endpoint_attracts_no_more_requests_than_eject_it() -> None:
    """It fails at once and so is never busy; a busy one stands beside it."""
    pool = router(2)
    dead, good = pool.endpoints
    for _ in range(200):
        pool.begin(good)
    tries = 0
    for _ in range(100):
        if pool.pick(0.0) is dead:
            tries += 1
            fail(pool, dead, 0.0)
    assert tries == EJECT_AFTER


def test_failures_in_a_row_eject() -> None:
    pool = router(2)
    bad, good = pool.endpoints
    fail(pool, bad, 0.0, times=EJECT_AFTER - 1)
    assert bad.state(0.0) is State.HEALTHY
    fail(pool, bad, 0.0)
    assert bad.state(1e9) is State.EJECTED
    assert pool.pick(1e9, avoid={good}) is good
    fail(pool, good, 0.0, times=EJECT_AFTER)
    assert pool.pick(1e9) is None
    outage = pool.outage(0.0)
    assert outage is not None
    assert outage.reason is Reason.CONNECTION
    assert "2 of 2 endpoints are ejected; last: broken" in outage.detail


def test_a_failing_check_ejects_at_once() -> None:
    pool = router(2)
    fail(pool, pool.endpoints[0], 0.0)
    pool.checked(pool.endpoints[0], 0.5, BROKEN)
    assert pool.endpoints[0].state(0.5) is State.EJECTED


def test_an_ejected_endpoint_returns_by_one_trial() -> None:
    pool = router(2)
    bad, _ = pool.endpoints
    fail(pool, bad, 0.0, times=EJECT_AFTER)
    pool.checked(bad, 1.0, None)
    assert bad.state(1.0) is State.TRIAL
    assert pool.pick(1.0) is bad
    trial = pool.begin(bad)
    assert pool.pick(1.0) is not bad
    pool.succeed(trial, 1.0)
    assert bad.state(1.0) is State.HEALTHY
    assert (pool._stats.ejections, pool._stats.returns) == (1, 1)


def test_failed_trials_are_repeated_at_growing_but_bounded_intervals() -> None:
    pool = router(1)
    (bad,) = pool.endpoints
    fail(pool, bad, 0.0, times=EJECT_AFTER)
    pauses, now = [], 0.0
    for _ in range(12):
        pool.checked(bad, now, None)
        fail(pool, bad, now)
        assert bad.check_at is not None
        pauses.append(bad.check_at - now)
        now = bad.check_at
    assert pauses[:5] == [FIRST_CHECK_S * 2**n for n in range(5)]
    assert set(pauses[5:]) == {INTERVAL_S}


def test_a_trial_is_over_when_an_earlier_request_succeeds() -> None:
    pool = router(1)
    (endpoint,) = pool.endpoints
    earlier = pool.begin(endpoint)
    fail(pool, endpoint, 0.0, times=EJECT_AFTER)
    pool.checked(endpoint, 0.0, None)
    trial = pool.begin(endpoint)
    pool.succeed(earlier, 1.0)
    pool.fail(trial, 2.0, BROKEN)
    assert (endpoint.state(2.0), endpoint.failures, pool.due(2.0)) == (State.HEALTHY, 1, [endpoint])
    assert (pool._stats.ejections, pool._stats.returns) == (1, 1)


def test_a_trial_that_was_given_up_makes_room_for_another() -> None:
    pool = router(1)
    (endpoint,) = pool.endpoints
    fail(pool, endpoint, 0.0, times=EJECT_AFTER)
    pool.checked(endpoint, 0.0, None)
    trial = pool.begin(endpoint)
    assert pool.pick(0.0) is None
    pool.withdraw(trial)
    assert pool.pick(0.0) is endpoint


def test_an_endpoint_that_asked_for_silence_gets_it_up_to_a_limit_and_then_a_trial() -> None:
    pool = router(2)
    first, second = pool.endpoints
    fail(pool, first, 0.0, busy(9.0), times=EJECT_AFTER)
    assert (first.state(8.9), pool.pick(8.9), pool.all_deferred(8.0)) == (State.EJECTED, second, False)
    fail(pool, second, 0.0, busy(1e9))
    assert pool.all_deferred(8.0)
    assert (pool.pick(8.0), pool.next_retry_at(8.0), pool.pick(9.0)) == (None, 9.0, first)
    assert pool.next_retry_at(9.0) == LONGEST_RETRY_AFTER_S
    assert pool.outage(0.0) == Unscorable(Reason.OVERLOADED, "http://fake asked not to be called for 9 s")
    assert (first.state(9.0), pool.due(1e9)) == (State.TRIAL, [])  # no check in between: it was only busy
    trial = pool.begin(first)
    assert pool.pick(9.0) is None
    pool.succeed(trial, 9.5)
    assert first.state(9.5) is State.HEALTHY
    assert (pool._stats.ejections, pool._stats.returns) == (2, 1)


def test_a_silence_is_not_cut_short_by_replies_to_earlier_requests() -> None:
    pool = router(1)
    (endpoint,) = pool.endpoints
    earlier = [pool.begin(endpoint) for _ in range(4)]
    pool.fail(earlier[0], 0.0, busy(9.0))
    pool.fail(earlier[1], 0.0, busy(1.0))
    pool.fail(earlier[2], 0.0, BROKEN)
    pool.succeed(earlier[3], 1.0)
    assert (endpoint.state(8.9), endpoint.state(9.0)) == (State.EJECTED, State.TRIAL)


def test_a_silence_after_failures_needs_a_check_as_well() -> None:
    pool = router(1)
    (endpoint,) = pool.endpoints
    earlier = pool.begin(endpoint)
    fail(pool, endpoint, 0.0, times=EJECT_AFTER)
    pool.fail(earlier, 0.0, busy(5.0))
    assert (endpoint.state(6.0), pool.all_deferred(1.0), pool.due(0.0)) == (State.EJECTED, False, [endpoint])
    pool.checked(endpoint, 1.0, None)
    assert (endpoint.state(4.9), endpoint.state(5.0)) == (State.EJECTED, State.TRIAL)


@pytest.mark.parametrize("retry_after_s", [None, 0.0])
def test_a_server_that_is_busy_and_asks_for_nothing_is_not_ejected(retry_after_s: float | None) -> None:
    pool = router(1)
    (endpoint,) = pool.endpoints
    fail(pool, endpoint, 0.0, busy(retry_after_s), times=3 * EJECT_AFTER)
    assert (endpoint.state(0.0), pool.due(1e9), pool._stats.ejections) == (State.HEALTHY, [], 0)
    fail(pool, endpoint, 0.0)  # nor does it make the first failure the last straw
    assert endpoint.state(0.0) is State.HEALTHY


def test_a_busy_server_stays_on_trial_until_it_takes_a_request() -> None:
    pool = router(1)
    (endpoint,) = pool.endpoints
    fail(pool, endpoint, 0.0, times=EJECT_AFTER)
    pool.checked(endpoint, 1.0, None)
    fail(pool, endpoint, 1.0, busy())
    assert (endpoint.state(1.0), pool.pick(1.0)) == (State.TRIAL, endpoint)
    fail(pool, endpoint, 1.0, busy(2.0))
    assert (endpoint.state(2.9), endpoint.state(3.0)) == (State.EJECTED, State.TRIAL)
    pool.succeed(pool.begin(endpoint), 3.0)
    assert endpoint.state(3.0) is State.HEALTHY


def test_a_reply_that_comes_in_time_makes_a_check_needless() -> None:
    pool = router(1)
    (endpoint,) = pool.endpoints
    fail(pool, endpoint, 0.0)
    pool.succeed(pool.begin(endpoint), 0.5)
    pool.checked(endpoint, 1.0, BROKEN)
    assert endpoint.state(1.0) is State.HEALTHY


class Life(RuleBasedStateMachine):
    """Any order of events, on any clock that does not go back."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = router(3)
        self.now = 0.0
        self.sent: list[Attempt] = []
        self.told = 0
        self.pool.listeners.append(self._hear)

    def _hear(self) -> None:
        self.told += 1

    @rule(seconds=st.floats(0, 400))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(avoid=st.sets(st.integers(0, 2)))
    def send(self, avoid: set[int]) -> None:
        avoided = {self.pool.endpoints[index] for index in avoid}
        endpoint = self.pool.pick(self.now, avoided)
        usable = [one for one in self.pool.endpoints if one.takes_requests(self.now)]
        assert (endpoint is None) == (not usable) == (self.pool.outage(self.now) is not None)
        if endpoint is not None:
            assert endpoint.state(self.now) is not State.EJECTED
            assert endpoint not in avoided or set(usable) <= avoided
            self.sent.append(self.pool.begin(endpoint))

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), end=st.sampled_from(["succeed", "fail", "busy", "silence", "withdraw"]))
    def end(self, data: st.DataObject, end: str) -> None:
        sent = self.sent.pop(data.draw(st.integers(0, len(self.sent) - 1)))
        usable, told = sent.endpoint.takes_requests(self.now), self.told
        if end == "succeed":
            self.pool.succeed(sent, self.now)
            assert (sent.endpoint.state(self.now) is State.HEALTHY) == (sent.endpoint.retry_at <= self.now)
        elif end == "withdraw":
            self.pool.withdraw(sent)
        else:
            failure = {"fail": BROKEN, "busy": busy(), "silence": busy(7.0)}[end]
            self.pool.fail(sent, self.now, failure)
            assert end != "silence" or not sent.endpoint.takes_requests(self.now + 6.9)
        # Nobody who waits for an endpoint may miss that one takes requests again.
        assert usable or not sent.endpoint.takes_requests(self.now) or self.told > told

    @rule(fine=st.booleans())
    def check(self, fine: bool) -> None:
        for endpoint in self.pool.due(self.now):
            self.pool.checked(endpoint, self.now, None if fine else BROKEN)
            assert not fine or endpoint.deferred(self.now) or endpoint.state(self.now) is not State.EJECTED

    @invariant()
    def counts_add_up(self) -> None:
        for endpoint in self.pool.endpoints:
            assert endpoint.in_flight == sum(sent.endpoint is endpoint for sent in self.sent)
            assert endpoint.trial is None or endpoint.trial in self.sent
            assert endpoint.trial is None or endpoint.status is not State.HEALTHY
        away = sum(endpoint.status is not State.HEALTHY for endpoint in self.pool.endpoints)
        assert self.pool._stats.ejections - self.pool._stats.returns == away

    @invariant()
    def none_is_lost_for_ever(self) -> None:
        for endpoint in self.pool.endpoints:
            if endpoint.status is State.EJECTED:
                assert endpoint.check_at is not None
                assert endpoint.check_at <= self.now + INTERVAL_S
            assert endpoint.retry_at <= self.now + LONGEST_RETRY_AFTER_S


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize("healthy", [True, False])
def test_a_check_of_an_endpoint_nobody_suspects_changes_nothing(healthy: bool) -> None:
    pool = router(1)
    pool.checked(pool.endpoints[0], 0.0, None if healthy else BROKEN)
    assert pool.endpoints[0].state(0.0) is State.HEALTHY
