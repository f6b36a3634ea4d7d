"""A password in a URL reaches the server it is for, and nothing that a person reads."""

import asyncio
import logging
import time
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web
from typer.testing import CliRunner

from speciarl.cli import app
from speciarl.errors import ConfigError, VerifierStartError
from speciarl.utils.credentials import authorization, passwords, public_url
from speciarl.verdict import Pair, Unscorable, Verdict
from speciarl.verifier_server.client.router import State
from speciarl.verifier_server.config import parse_config
from speciarl.verifier_server.llm_verifier import LLMVerifier
from speciarl.verifier_server.remote_verifier import RemoteVerifier
from speciarl.verifier_server.service.config import parse_settings
from speciarl.verifier_server.store import StoreError, build_store

MakeJudge = Callable[[], Any]
PASSWORD = "s3cr/t"
TOKEN = b64encode(f"user:{PASSWORD}".encode()).decode()
SPELLINGS = (PASSWORD, "s3cr%2Ft", "s3cr", TOKEN)


def secretive(url: str) -> str:
    """The URL with a user name and the password in it."""
    return url.replace("://", "://user:s3cr%2Ft@")


def clean(text: str) -> bool:
    return not any(spelling in text for spelling in SPELLINGS)


def settings(url: str, **changes: Any) -> dict[str, Any]:
    """A judge without retries."""
    return {
        "model": "fake", "prompt": "compact", "probe": False, "endpoints": [secretive(url)], "retries": 0,
        "backoff_s": 0.01, "startup_deadline_s": 30, "total_deadline_s": 60, "health_interval_s": 0.1,
    } | changes  # fmt: skip


async def refuse(_: Any, request: web.Request) -> web.Response:
    return web.Response(status=400, text=f"bad: {request.headers['Authorization']} {PASSWORD}")


async def fail(_: Any, request: web.Request) -> web.Response:
    return web.Response(status=500, text=f"failed: {request.headers['Authorization']} {PASSWORD}")


async def garble(_: Any, request: web.Request) -> web.Response:
    return web.Response(text=f"no JSON: {request.headers['Authorization']}")


async def misreply(*_: Any) -> web.Response:
    return web.json_response({"choices": []})


@pytest.mark.anyio
@pytest.mark.parametrize("fault", [refuse, fail, garble, misreply])
async def test_a_failing_judge(fake_judge: MakeJudge, fault: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with fake_judge().running() as judge:
        verifier = LLMVerifier(parse_config(settings(judge.url)))
        await verifier.start()
        assert isinstance(await verifier.verify(Pair("dog", "cat")), Verdict)
        assert judge.headers[-1]["Authorization"] == f"Basic {TOKEN}"
        judge.arm(lambda _: fault)
        judgement = await verifier.verify(Pair("dog", "fox"))
        assert isinstance(judgement, Unscorable)
        assert judge.url in judgement.detail
        assert clean(judgement.detail)
        (endpoint,) = verifier.endpoint_stats()
        assert (endpoint.url, clean(endpoint.last_failure)) == (judge.url, True)
        await verifier.aclose()
    assert clean(caplog.text)


@pytest.mark.anyio
async def test_an_ejected_judge_that_returns(fake_judge: MakeJudge, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with fake_judge().running() as judge:
        verifier = LLMVerifier(parse_config(settings(judge.url, total_deadline_s=1.0)))
        await verifier.start()
        judge.arm(lambda _: fail)
        judge.ill = True
        judgements = [await verifier.verify(Pair("dog", f"fox {index}")) for index in range(2)]
        assert all(isinstance(one, Unscorable) and clean(one.detail) for one in judgements)
        judge.arm(lambda _: None)
        judge.ill = False
        expires = time.monotonic() + 30
        while verifier.endpoint_stats()[0].state is not State.HEALTHY:
            assert time.monotonic() < expires
            await verifier.verify(Pair("dog", "wolf"))
            await asyncio.sleep(0.02)
        await verifier.aclose()
    told = [message for message in caplog.messages if "judge endpoint" in message]
    assert all(judge.url in message for message in told)
    assert len(told) >= 2
    assert clean(caplog.text)


@pytest.mark.anyio
async def test_a_judge_or_service_that_cannot_be_reached(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    url = "http://127.0.0.1:1"
    model = settings(url, startup_deadline_s=0.5)
    service = {"service_url": secretive(url), "startup_deadline_s": 0.1}
    for verifier in (LLMVerifier(parse_config(model)), RemoteVerifier(parse_config(service))):
        with pytest.raises(VerifierStartError, match=url) as caught:
            await verifier.start()
        assert clean(str(caught.value))
    assert clean(caplog.text)


@pytest.mark.anyio
async def test_a_server_that_is_no_service(fake_judge: MakeJudge) -> None:
    async with fake_judge().running() as judge:
        with pytest.raises(VerifierStartError, match=judge.url) as caught:
            await RemoteVerifier(parse_config({"service_url": secretive(judge.url)})).start()
        assert clean(str(caught.value))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://user:secret@host:8000/v1", "http://host:8000/v1"),
        ("https://host/v1?key=secret#x", "https://host/v1"),
        ("http://[::1]:8000", "http://[::1]:8000"),
        ("redis://:secret@host:1/0?password=secret", "redis://host:1/0"),
        ("http://user:secret@secret@host/v1", "http://host/v1"),
        ("http://user:secret/secret@host/v1", "host/v1"),
        ("http://user:1/secret@host/v1", "host/v1"),
        ("http://user:1#secret@host/v1", "host/v1"),
        ("user:secret@host:1?key=secret", "host:1"),
        ("http://[secret@host/v1", "host/v1"),
        ("nonsense", "nonsense"),
    ],
)
def test_what_is_shown_of_a_url(url: str, shown: str) -> None:
    assert public_url(url) == shown


def test_what_goes_into_requests() -> None:
    url = secretive("http://host")
    assert authorization(url) == f"Basic {TOKEN}"
    assert authorization(url, "key") == "Bearer key"
    assert passwords(url) == {PASSWORD, "s3cr%2Ft"}
    for other in ("http://host/v1", "http://host:x"):
        assert (authorization(other), passwords(other)) == (None, set())


REDIS = {"kind": "redis", "url": "redis://:s3cr/t@host:1/0"}


@pytest.mark.parametrize(
    ("mapping", "said"),
    [
        ({"model": "m", "endpoints": ["http://user:s3cr/t@host/v1"]}, "'host/v1' is no URL"),
        ({"model": "m", "endpoints": ["ftp://user:s3cr%2Ft@host"]}, "'ftp://host' is no URL"),
        ({"model": "m", "endpoints": {"http://user:s3cr%2Ft@host": 1}}, "verifier.endpoints: "),
        (
            {"model": "m", "endpoints": "http://user:s3cr%2Ft@host/models"},
            "'http://host/models' is the URL of one",
        ),
        ({"service_url": ["http://user:s3cr%2Ft@host"]}, "verifier.service_url: "),
        ({"service_url": "user:s3cr%2Ft@host"}, "'host' is no URL"),
        ({"model": "m", "endpoints": ["http://host"], "store": REDIS}, "'host:1/0' is no Redis URL"),
        (
            {"model": "m", "endpoints": ["http://user:s3cr%2Ft@host"], "api_key_file": "key"},
            "`api_key_file` and a user",
        ),
        ({"service_url": "http://user:s3cr%2Ft@host", "api_key_file": "key"}, "`api_key_file` and a user"),
    ],
)
def test_settings_that_are_wrong(mapping: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(mapping)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert clean(str(caught.value))
    assert clean(str(caught.value.__cause__))  # a stack shows it too


@pytest.mark.parametrize(
    "mapping",
    [
        {"judges": {"main": "http://user:s3cr%2Ft@host"}},
        {"judges": {"gold": {"kind": "taxonomy", "taxonomy": "x"}}, "verdict_log": "http://user:s3cr%2Ft@host"},
    ],
)
def test_settings_of_a_service_that_are_wrong(mapping: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_settings(mapping)
    assert clean(str(caught.value))
    assert clean(str(caught.value.__cause__))


@pytest.mark.anyio
async def test_a_redis_that_cannot_be_reached() -> None:
    config = parse_config(
        settings("http://host") | {"store": {"kind": "redis", "url": secretive("redis://127.0.0.1:1")}}
    )
    assert config.store is not None
    store = build_store(config.store)
    with pytest.raises(StoreError, match=r"redis://127\.0\.0\.1:1 cannot be used") as caught:
        await store.open()
    assert clean(str(caught.value) + store.where)


@pytest.mark.parametrize(
    "command",
    [
        ["top", "--once", secretive("http://127.0.0.1:1")],
        ["judge", "--truth", "a", "--prediction", "b", secretive("http://127.0.0.1:1")],
        ["store", "stats", "http://user:s3cr%2Ft@127.0.0.1:1"],
        ["store", "stats", "redis://user:s3cr/t@127.0.0.1:1"],
    ],
)
def test_commands(command: list[str]) -> None:
    ended = CliRunner().invoke(app, ["verifier", *command])
    assert ended.exit_code == 2
    assert "127.0.0.1:1" in ended.stderr
    assert clean(ended.output)
