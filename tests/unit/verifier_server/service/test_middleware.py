"""Who may ask, how much, and what is never told."""

import asyncio
import hmac
import io
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from openapi_answers import hold

from speciarl.errors import VerifierStartError
from speciarl.verifier_server.service import middleware
from speciarl.verifier_server.service.app import create_app
from speciarl.verifier_server.service.middleware import BodyLimit
from speciarl.verifier_server.service.server import JsonFormatter, TextFormatter

pytestmark = pytest.mark.anyio

Make = Callable[..., Any]
KEY = "sesame-open-0123456789"
PAIR = {"ground_truth": "dog", "prediction": "samoyed"}


@pytest.fixture
def key_file(tmp_path: Path) -> str:
    path = tmp_path / "service.key"
    path.write_text(f"{KEY}\n")
    return str(path)


WRONG_HEADERS: list[dict[str, str]] = [
    {},
    {"Authorization": ""},
    {"Authorization": "Bearer"},
    {"Authorization": "Bearer wrong"},
    {"Authorization": f"Bearer {KEY}x"},
    {"Authorization": f"Bearer {KEY[:-1]}"},
    {"Authorization": f"Basic {KEY}"},
    {"Authorization": KEY},
    {"X-Api-Key": KEY},
]


async def test_without_the_key_nothing_is_told(make_settings: Make, running: Make, key_file: str) -> None:
    routes = [("POST", "/v1/judge"), ("POST", "/api/v1/classify/standard"), ("GET", "/v1/judges"), ("GET", "/v1/runs")]
    async with running(make_settings(key_file=key_file)) as client:
        documents = [("GET", "/openapi.json"), ("GET", "/docs"), ("GET", "/redoc")]
        for method, route in [*routes, *documents, ("GET", "/metrics"), ("GET", "/nope")]:
            for headers in WRONG_HEADERS:
                reply = await client.request(method, route, headers=headers, content=b"x")
                assert reply.status_code == 401
                assert reply.headers["WWW-Authenticate"] == "Bearer"
                assert reply.json()["error"]["code"] == "unauthorized"
                assert KEY not in reply.text


async def test_the_key_opens_and_health_needs_none(make_settings: Make, running: Make, key_file: str) -> None:
    async with running(make_settings(key_file=key_file)) as client:
        assert (await client.get("/health")).status_code == 200
        assert (await client.get("/ready")).status_code == 200
        reply = await client.post("/v1/judge", json={"pairs": [PAIR]}, headers={"Authorization": f"bearer {KEY}"})
        assert reply.status_code == 200
        for document in ("/openapi.json", "/docs"):
            assert (await client.get(document, headers={"Authorization": f"Bearer {KEY}"})).status_code == 200
        twice = [("Authorization", f"Bearer {KEY}"), ("Authorization", "Bearer other")]
        assert (await client.get("/v1/runs", headers=twice)).status_code == 401


async def test_below_a_path_the_same_routes_are_open() -> None:
    """As on Ray Serve, which leaves its prefix in the path."""
    asked: list[str] = []

    async def reached(scope: Any, _: Any, __: Any) -> None:
        asked.append(scope["path"])

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            asked.append(message["status"])

    for path in ("/verifier/ready", "/verifier/health", "/verifier/v1/judges", "/verifier"):
        scope = {"type": "http", "path": path, "root_path": "/verifier", "headers": []}
        await middleware.BearerKey(reached, KEY)(scope, None, send)  # type: ignore[arg-type]
    assert asked == ["/verifier/ready", "/verifier/health", 401, 401]


async def test_the_key_is_compared_in_constant_time(
    make_settings: Make, running: Make, key_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[Any, Any]] = []
    compare = hmac.compare_digest

    def comparing(one: Any, other: Any) -> bool:
        compared.append((one, other))
        return compare(one, other)

    monkeypatch.setattr(middleware.hmac, "compare_digest", comparing)
    async with running(make_settings(key_file=key_file)) as client:
        for given in ("short", f"{KEY}"):
            await client.get("/v1/runs", headers={"Authorization": f"Bearer {given}"})
    assert compared == [(b"short", KEY.encode()), (KEY.encode(), KEY.encode())]


def test_a_bad_key_file_stops_the_service(make_settings: Make, tmp_path: Path) -> None:
    with pytest.raises(VerifierStartError, match="service: cannot read key_file"):
        create_app(make_settings(key_file=str(tmp_path / "missing")))
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(VerifierStartError, match="must hold one key"):
        create_app(make_settings(key_file=str(tmp_path / "empty")))


async def test_a_long_body_is_refused_whether_or_not_it_says_so(make_settings: Make, running: Make) -> None:
    async def chunks() -> Any:
        for _ in range(4):
            yield b" " * 1000

    async with running(make_settings(limits={"body_bytes": 2000})) as client:
        for content in (b" " * 4000, chunks()):
            reply = await client.post("/v1/judge", content=content, headers={"Content-Type": "application/json"})
            assert reply.status_code == 413
            assert reply.json()["error"]["code"] == "body_too_long"
        assert (await client.post("/v1/judge", json={"pairs": [PAIR]})).status_code == 200


async def test_what_comes_with_a_get_is_not_read(make_settings: Make, running: Make) -> None:
    async with running(make_settings(limits={"body_bytes": 2000})) as client:
        for route in ("/v1/judges", "/v1/runs", "/metrics", "/ready"):
            assert (await client.request("GET", route, content=b" " * 4000)).status_code == 200


async def test_no_route_redirects(make_settings: Make, running: Make) -> None:
    async with running(make_settings()) as client:
        for method, route in (("GET", "/v1/runs/"), ("GET", "/ready/"), ("POST", "/v1/judge/")):
            reply = await client.request(method, route)
            assert (reply.status_code, reply.json()["error"]["code"]) == (404, "not_found")


async def test_a_slow_body_is_not_waited_for() -> None:
    async def never(*_: Any) -> None:
        raise AssertionError("the application was called")

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(60)
        return {}

    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await BodyLimit(never, 1000, 0.05)({"type": "http", "method": "POST", "headers": []}, receive, send)
    assert sent[0]["status"] == 408
    assert json.loads(sent[1]["body"])["error"]["code"] == "body_too_slow"


async def test_too_many_pairs_and_too_long_texts(make_settings: Make, running: Make) -> None:
    limits = {"pairs_per_request": 3, "waiting_pairs": 3, "string_chars": 10}
    async with running(make_settings(limits=limits)) as client:
        reply = await client.post("/v1/judge", json={"pairs": [PAIR] * 4})
        assert reply.status_code == 413
        assert reply.json()["error"]["code"] == "too_many_pairs"
        long = [PAIR, PAIR | {"prediction": "x" * 11}, PAIR | {"ground_truth": "x" * 11}]
        results = (await client.post("/v1/judge", json={"pairs": long})).json()["results"]
        assert [result.get("reason") for result in results] == [None, "too_long", "too_long"]


async def test_more_than_can_wait_is_told_to_come_back(make_settings: Make, running: Make, fake_judge: Make) -> None:
    limits = {"pairs_per_request": 2, "waiting_pairs": 2}
    async with fake_judge().running() as judge, running(make_settings(judge.url, limits=limits)) as client:
        judge.gate.clear()
        body = {"judge": "main", "pairs": [{"ground_truth": "dog", "prediction": name} for name in ("cat", "fox")]}
        first = asyncio.create_task(client.post("/v1/judge", json=body))
        while client._transport.app.state.core.admission.waiting < 2:
            await asyncio.sleep(0.005)
        refused = await client.post("/v1/judge", json=body)
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "overloaded"
        assert int(refused.headers["Retry-After"]) >= 1
        judge.gate.set()
        assert (await first).status_code == 200
        assert (await client.post("/v1/judge", json=body)).status_code == 200
        assert "speciarl_service_refused_total 1.0" in (await client.get("/metrics")).text


async def test_until_the_judges_are_up_clients_are_told_to_come_back(make_settings: Make, fake_judge: Make) -> None:
    import httpx

    async with fake_judge().running() as judge:
        judge.warming_up = True
        app = create_app(make_settings(judge.url))
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://s", event_hooks={"response": [hold(app)]}) as http,
        ):
            assert (await http.get("/health")).status_code == 200
            ready = await http.get("/ready")
            assert (ready.status_code, ready.json()["judges"]["main"]) == (503, "starting")
            reply = await http.post("/v1/judge", json={"judge": "main", "pairs": [PAIR]})
            assert (reply.status_code, reply.json()["error"]["code"]) == (503, "judge_starting")
            assert int(reply.headers["Retry-After"]) >= 1


async def test_a_judge_that_cannot_start_is_told_and_the_others_work(
    make_settings: Make, running: Make, fake_judge: Make
) -> None:
    async with fake_judge().running() as judge:
        judge.models = ["another"]
        async with running(make_settings(judge.url)) as client:
            assert (await client.get("/ready")).status_code == 503
            reply = await client.post("/v1/judge", json={"judge": "main", "pairs": [PAIR]})
            assert (reply.status_code, reply.json()["error"]["code"]) == (503, "judge_failed")
            assert "does not serve 'fake'" in reply.json()["error"]["message"]
            assert (await client.post("/v1/judge", json={"judge": "gold", "pairs": [PAIR]})).status_code == 200


async def test_a_bug_is_an_error_without_its_stack(make_settings: Make, running: Make) -> None:
    async with running(make_settings()) as client:

        def broken(*_: Any) -> Any:
            raise RuntimeError("inner secret")

        _, verifier = client._transport.app.state.core.judges.get("gold")
        verifier.recall = broken
        reply = await client.post("/v1/judge", json={"pairs": [PAIR]})
        assert (reply.status_code, reply.json()["error"]["code"]) == (500, "internal")
        assert "secret" not in reply.text


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter()])
async def test_no_client_forges_a_line_of_the_log(
    make_settings: Make, running: Make, formatter: logging.Formatter
) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    access = logging.getLogger("speciarl.access")
    level = access.level
    access.addHandler(handler)
    access.setLevel(logging.INFO)
    try:
        async with running(make_settings()) as client:
            body = {"judge": "x\n12:00:00 INFO    forged\r\x1b[2K\u2028\x85é", "pairs": [PAIR]}
            assert (await client.post("/v1/judge", json=body)).status_code == 404
    finally:
        access.removeHandler(handler)
        access.setLevel(level)
    (line,) = stream.getvalue().removesuffix("\n").split("\n")
    assert "forged" in line
    assert "\r" not in line
    assert "\x1b" not in line
    assert "é" in line
    if isinstance(formatter, TextFormatter):
        assert len(line.splitlines()) == 1  # nor any other end of a line that Unicode knows


def test_the_stack_of_an_exception_stays_readable() -> None:
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "", 1, "it\nfailed", (), sys.exc_info())
    first, *stack = TextFormatter().format(record).splitlines()
    assert first.endswith("it\\nfailed")
    assert stack[-2:] == ["ValueError: first", "second"]


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter()])
async def test_logs_tell_what_was_asked_and_never_what_was_in_it(
    make_settings: Make, running: Make, key_file: str, formatter: logging.Formatter
) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        async with running(make_settings(key_file=key_file)) as client:
            for key in (KEY, "wrong-key"):
                headers = {"Authorization": f"Bearer {key}"}
                body = {"run": "night", "pairs": [PAIR | {"prediction": "private words"}]}
                await client.post("/v1/judge?token=in-the-query", json=body, headers=headers)
            await client.get("/v1/runs/named-in-the-path", headers=headers)
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    said = "\n".join(line for line in stream.getvalue().splitlines() if "HTTP Request" not in line)  # the client's own
    for secret in (KEY, "wrong-key", "private words", "in-the-query", "named-in-the-path"):
        assert secret not in said
    accesses = [line for line in said.splitlines() if "POST /v1/judge 200" in line]
    assert len(accesses) == 1
    if isinstance(formatter, JsonFormatter):
        entry = json.loads(accesses[0])
        assert (entry["method"], entry["route"], entry["status"]) == ("POST", "/v1/judge", 200)
        assert (entry["pairs"], entry["judge"], entry["run"]) == (1, "gold", "night")
        assert entry["seconds"] > 0
    else:
        assert "pairs=1" in accesses[0]
