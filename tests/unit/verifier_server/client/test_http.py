"""How servers are addressed, and what they say about when to come back."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Literal

import pytest

from speciarl.verifier_server.client.http import base_urls, retry_after_seconds

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


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
