"""Judges' servers as they are: what goes to them, and how long they are waited for; `test_audited_servers` has more."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from listening import listening
from quirky_server import MODEL, QuirkyServer, completion

from speciarl.errors import ConfigError, VerifierStartError
from speciarl.utils.proxies import proxy_of
from speciarl.verdict import Pair, Unscorable, Verdict
from speciarl.verifier_server import parse_config
from speciarl.verifier_server.llm_verifier import LLMVerifier
from speciarl.verifier_server.remote_verifier import RemoteVerifier

pytestmark = pytest.mark.anyio


@contextlib.asynccontextmanager
async def judged_through(quirk: str, **changes: Any) -> AsyncIterator[tuple[QuirkyServer, LLMVerifier]]:
    async with QuirkyServer().running() as server:
        plain = {"kind": "openai", "model": MODEL, "endpoints": [f"{server.url}/{quirk}/v1"], "prompt": "compact"}
        quick = {"retries": 2, "backoff_s": 0.01, "total_deadline_s": 20, "startup_deadline_s": 2, "probe": False}
        verifier = LLMVerifier(parse_config(plain | quick | changes))
        await verifier.start()
        try:
            yield server, verifier
        finally:
            await verifier.aclose()


async def test_fields_that_a_server_refuses_can_be_left_out_or_renamed() -> None:
    fields = {"max_tokens": None, "temperature": None, "max_completion_tokens": 64}
    async with judged_through("new-parameters", request_fields=fields) as (_, verifier):
        assert isinstance(await verifier.verify(Pair("lion", "wolf")), Verdict)


async def test_the_query_of_an_endpoint_is_sent_and_not_shown() -> None:
    async with QuirkyServer().running() as server:
        url = f"{server.url}/azure/v1?api-version=2024-10-21&key=0123456789abcdef0123"
        verifier = LLMVerifier(
            parse_config({"kind": "openai", "model": MODEL, "endpoints": url, "prompt": "compact", "probe": False})
        )
        await verifier.start()
        try:
            assert isinstance(await verifier.verify(Pair("lion", "wolf")), Verdict)
            assert server.queries["azure"] == {"api-version": "2024-10-21", "key": "0123456789abcdef0123"}
            assert "0123456789abcdef" not in verifier.endpoint_stats()[0].url
        finally:
            await verifier.aclose()


@pytest.mark.parametrize("path", ["/azure/v1", "/azure/a%2Fb/v1", "/azure/v1/"])
async def test_an_endpoint_is_asked_for_as_it_is_written(path: str) -> None:
    query = "sig=a%2Bb%3D&to=x+y&name=na%C3%AFve&empty="
    async with QuirkyServer().running() as server:
        config = {"kind": "openai", "model": MODEL, "prompt": "compact", "probe": False}
        verifier = LLMVerifier(parse_config(config | {"endpoints": f"{server.url}{path}?{query}"}))
        await verifier.start()
        await verifier.aclose()
    expected = f"{path.rstrip('/')}/chat/completions?{query}"
    assert server.targets["azure"] == expected


async def test_the_query_of_a_vllm_server_and_of_a_service_goes_with_every_route() -> None:
    seen: list[tuple[str, str]] = []

    async def note(request: web.Request) -> web.StreamResponse:
        seen.append((request.path, request.query_string))
        raise web.HTTPNotFound

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", note)
    async with listening(app) as url:
        plain = {"startup_deadline_s": 0.2, "total_deadline_s": 1, "retries": 0}
        vllm = LLMVerifier(parse_config(plain | {"model": MODEL, "endpoints": f"{url}/v1?k=v"}))
        service = RemoteVerifier(parse_config(plain | {"service_url": f"{url}/judges?k=v"}))
        for verifier in (vllm, service):
            with pytest.raises(VerifierStartError):
                await verifier.start()
            await verifier.aclose()
    assert {path.split("/")[1] for path, _ in seen} == {"v1", "judges"}
    assert {query for _, query in seen} == {"k=v"}


async def test_an_overload_at_the_start_is_waited_out() -> None:
    async with judged_through("rate-limited", retries=0, startup_deadline_s=0.5) as (server, verifier):
        assert isinstance(await verifier.verify(Pair("lion", "wolf")), Verdict)
        assert server.asked["rate-limited"] >= 2


async def test_an_overload_inside_a_good_status_costs_no_retries() -> None:
    async with judged_through("rate-limited-inside", retries=0, chats_per_request=1) as (_, verifier):
        judgements = [await verifier.verify(Pair("lion", f"wolf {number}")) for number in range(12)]
    assert not [judgement for judgement in judgements if isinstance(judgement, Unscorable)]


@pytest.mark.parametrize("route", ["/chat/completions", "/models"])
def test_the_url_of_a_route_is_no_endpoint(route: str) -> None:
    with pytest.raises(ConfigError, match=rf"is the URL of one route; leave {route} out"):
        parse_config({"kind": "openai", "model": "m", "endpoints": [f"https://api.example/v1{route}"]})


async def test_a_proxy_is_used_where_the_environment_names_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert proxy_of("https://api.example/v1") is None
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("http_proxy", "plain.example:3128")
    monkeypatch.setenv("no_proxy", "inside.example")
    assert proxy_of("https://user:pw@api.example/v1?x=y") == "http://proxy.example:3128"
    assert proxy_of("http://api.example/v1") == "http://plain.example:3128"
    direct = (
        "https://inside.example",
        "http://127.0.0.1:8000",
        "http://10.1.2.3",
        "http://localhost:1",
        "http://[::1]:1",
    )
    assert {proxy_of(url) for url in direct} == {None}
    assert proxy_of("https://user:pw@inside.example/v1") is None


async def test_a_judge_behind_a_proxy_is_asked_through_it(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    async def forward(request: web.Request) -> web.StreamResponse:
        seen.append(str(request.url))
        if request.path.endswith("/models"):
            return web.json_response({"data": [{"id": MODEL}]})
        body = await request.json()
        return web.json_response(completion(body))

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", forward)
    async with listening(app) as proxy:
        monkeypatch.setenv("http_proxy", proxy)
        monkeypatch.delenv("no_proxy", raising=False)
        plain = {"kind": "openai", "model": MODEL, "endpoints": "http://judge.example/v1", "prompt": "compact"}
        verifier = LLMVerifier(parse_config(plain | {"probe": False}))
        await verifier.start()
        assert isinstance(await verifier.verify(Pair("lion", "wolf")), Verdict)
        await verifier.aclose()
    assert {url.partition("/v1")[0] for url in seen} == {"http://judge.example"}


async def test_a_key_file_may_lie_at_home(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from speciarl.utils.credentials import read_key

    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "key").write_text("sk-123\n")
    assert read_key("~/key", "judge") == "sk-123"
