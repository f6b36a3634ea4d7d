"""Which endpoint comes next, and how servers are addressed."""

from datetime import datetime, timedelta, timezone
from typing import Any, Literal

import pytest

from speciarl.verdict import Reason, Unscorable
from speciarl.verifier_server.client import Failure, base_urls, retry_after_seconds
from speciarl.verifier_server.routing import LONGEST_REST_S, Endpoint, Router

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
BROKEN = Failure(Unscorable(Reason.CONNECTION), passing=True)
REFUSED = Failure(Unscorable(Reason.HTTP_ERROR), passing=False)


class FakeClient:
    """Routing never calls a client."""


def router(count: int) -> Router:
    client: Any = FakeClient()
    return Router([Endpoint(client) for _ in range(count)])


def test_equal_endpoints_take_turns() -> None:
    pool = router(3)
    order = []
    for _ in range(6):
        endpoint = pool.pick(0.0)
        pool.begin(endpoint)
        pool.end(endpoint, 0.0, None)
        order.append(pool.endpoints.index(endpoint))
    assert order == [0, 1, 2, 0, 1, 2]


def test_the_least_loaded_is_chosen() -> None:
    pool = router(3)
    for index in (0, 0, 1, 2, 2):
        pool.begin(pool.endpoints[index])
    assert pool.pick(0.0) is pool.endpoints[1]


def test_a_failing_endpoint_rests_longer_each_time_and_returns() -> None:
    pool = router(2)
    bad, good = pool.endpoints
    rests = []
    for _ in range(8):
        pool.begin(bad)
        pool.end(bad, 100.0, BROKEN)
        rests.append(bad.resting_until - 100.0)
    assert rests == [1, 2, 4, 8, 16, LONGEST_REST_S, LONGEST_REST_S, LONGEST_REST_S]
    pool.begin(good)
    assert pool.pick(100.0) is good
    assert pool.pick(100.0 + LONGEST_REST_S) is bad
    pool.begin(bad)
    pool.end(bad, 131.0, None)
    assert (bad.failures, bad.resting_until) == (0, 0.0)


def test_a_bad_request_is_not_the_endpoints_fault() -> None:
    pool = router(1)
    pool.begin(pool.endpoints[0])
    pool.end(pool.endpoints[0], 5.0, REFUSED)
    assert pool.endpoints[0].failures == 0


def test_an_endpoint_that_asked_for_peace_comes_last() -> None:
    pool = router(2)
    first, second = pool.endpoints
    pool.begin(first)
    pool.end(first, 0.0, Failure(Unscorable(Reason.OVERLOADED), passing=True, retry_after_s=9.0))
    pool.begin(second)
    pool.end(second, 0.0, BROKEN)
    assert pool.pick(0.0) is second
    assert (pool.wait_s(first, 4.0), pool.wait_s(second, 4.0)) == (5.0, 0.0)


def test_avoided_endpoints_are_used_when_there_is_no_other() -> None:
    pool = router(2)
    first, second = pool.endpoints
    assert pool.pick(0.0, avoid={first}) is second
    assert pool.pick(0.0, avoid={first, second}) is first


@pytest.mark.parametrize(
    ("url", "kind", "root", "api"),
    [
        ("http://h:1", "vllm", "http://h:1", "http://h:1/v1"),
        ("http://h:1/v1/", "vllm", "http://h:1", "http://h:1/v1"),
        ("http://h/judge/v1", "vllm", "http://h/judge", "http://h/judge/v1"),
        ("https://api.example.com", "openai", "https://api.example.com", "https://api.example.com/v1"),
        ("https://h/v1beta/openai/", "openai", "https://h/v1beta/openai", "https://h/v1beta/openai"),
        ("https://h/v1", "openai", "https://h", "https://h/v1"),
    ],
)
def test_base_urls(url: str, kind: Literal["vllm", "openai"], root: str, api: str) -> None:
    assert base_urls(url, kind) == (root, api)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("7", 7.0),
        (" 0 ", 0.0),
        ("Fri, 02 Jan 2026 03:04:35 GMT", 30.0),
        ("Fri, 02 Jan 2026 03:04:00 GMT", 0.0),
        ("soon", None),
        ("", None),
        ("-3", None),
        ("²", None),
    ],
)
def test_retry_after(header: str | None, seconds: float | None) -> None:
    assert retry_after_seconds(header, NOW) == seconds


def test_retry_after_reads_dates_of_other_zones() -> None:
    moment = (NOW + timedelta(seconds=10)).astimezone(timezone(timedelta(hours=2)))
    assert retry_after_seconds(moment.strftime("%a, %d %b %Y %H:%M:%S +0200"), NOW) == 10
