"""Whatever is sent, the answer is one the OpenAPI document describes, and never a fault of the service."""

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import ignored_auth, negative_data_rejection, not_a_server_error, unsupported_method
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from speciarl.category import Category
from speciarl.verdict import Judgement, Pair, Reason, Source, Unscorable, Verdict
from speciarl.verifier_server.config import VerifierConfig
from speciarl.verifier_server.service.app import create_app
from speciarl.verifier_server.service.config import parse_settings

Make = Callable[..., Any]

KEY = "sesame-open"
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
    unsupported_method,
    allow_header_conformance,
    ignored_auth,
]


class FakeVerifier:
    """Judges by the length of the prediction: each category in turn, then no verdict."""

    def __init__(self, _: VerifierConfig) -> None:
        self.closed = False

    async def start(self) -> None:
        """Needs nothing."""

    def recall(self, pair: Pair, times: int = 1) -> None:
        return None

    async def verify(self, pair: Pair) -> Judgement:
        """At once."""
        turn = len(pair.prediction) % 7
        if turn == 6:
            return Unscorable(Reason.UNKNOWN_CONCEPT, "fake")
        return Verdict(Category(turn), turn / 3, list(Source)[turn % 5], (1 / 6,) * 6 if turn % 2 else None)

    def stats(self) -> dict[str, float]:
        """Counts nothing."""
        return {"requests": 0.0}

    async def aclose(self) -> None:
        """Holds nothing."""


ROUTES = ("/v1/judge", "/api/v1/classify/standard", "/api/v1/classify/binary")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a service in a thread, with a key, small limits and a verdict log."""
    folder: Path = tmp_path_factory.mktemp("fuzz")
    (folder / "key").write_text(KEY)
    config = parse_settings(
        {
            "judges": {"gold": {"kind": "taxonomy", "taxonomy": "none needed", "max_string_chars": 40}},
            "key_file": str(folder / "key"),
            "limits": {"string_chars": 40, "body_bytes": 20_000, "pairs_per_request": 50, "waiting_pairs": 500},
            "verdict_log": {"directory": str(folder / "log"), "flush_s": 0.2},
        }
    )
    app = create_app(config, build_verifier=FakeVerifier)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=1))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with httpx.Client(transport=httpx.HTTPTransport(retries=5)) as client:
            while client.get(f"{url}/ready").status_code != 200:
                """It starts in an instant."""
        yield url
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def http(service: str) -> Iterator[httpx.Client]:
    """A client that holds the key."""
    with httpx.Client(base_url=service, headers={"Authorization": f"Bearer {KEY}"}) as client:
        yield client


@pytest.mark.parametrize("mode", GenerationMode)
def test_every_operation_keeps_to_its_description(service: str, mode: GenerationMode) -> None:
    headers = {"Authorization": f"Bearer {KEY}"}
    document = schemathesis.openapi.from_url(f"{service}/openapi.json", headers=headers)
    document.config.update(base_url=service)
    tried: set[str] = set()
    for result in document.get_all_operations():
        operation = result.ok()
        if mode is GenerationMode.NEGATIVE and not (operation.body or operation.query or operation.path_parameters):
            continue  # there is nothing that could be wrong

        @settings(max_examples=8, suppress_health_check=list(HealthCheck), database=None)
        @given(operation.as_strategy(generation_mode=mode))
        def call(case: schemathesis.Case) -> None:
            tried.add(case.operation.label)
            case.call_and_validate(headers=headers, checks=CHECKS)

        call()
    assert {f"POST {route}" for route in ROUTES} | {"GET /v1/runs/{run}/results"} <= tried
    assert mode is GenerationMode.NEGATIVE or {"GET /v1/judges", "GET /metrics", "GET /ready"} <= tried


plain = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=60)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=10,
)
texts = st.one_of(st.sampled_from(["dog", "animal", "none", "x" * 41, "\x00", "\ud800", "İ"]), st.text(max_size=60))
ids = st.one_of(st.sampled_from(["7", "x" * 200, "x" * 201, "\ud800"]), plain)
pairs = st.fixed_dictionaries({"ground_truth": texts, "prediction": texts}, optional={"id": ids})
typed = st.fixed_dictionaries(
    {"pairs": st.lists(st.one_of(pairs, plain))},
    optional={"judge": st.one_of(st.just("gold"), plain), "run": st.one_of(st.just("night"), plain)},
)
compatible = st.fixed_dictionaries(
    {"ground_truths": st.lists(texts, max_size=4), "predictions": st.lists(texts, max_size=4)},
    optional=dict.fromkeys(("model", "verifier_prompt", "run_name", "extra_info", "more"), plain),
)
bodies = st.one_of(plain, typed, compatible).map(lambda body: json.dumps(body).encode())


def is_text(value: object) -> bool:
    return isinstance(value, str) and value.encode(errors="ignore").decode() == value


def flaw_of(item: Any) -> str | None:
    """Why an item of `typed` has no verdict whatever the judge says."""
    if not isinstance(item, dict) or not {"ground_truth", "prediction"} <= set(item):
        return "malformed"
    pair_id = "" if item.get("id") is None else item["id"]
    if not all(map(is_text, (item["ground_truth"], item["prediction"], pair_id))):
        return "malformed"
    longest = max(len(item["ground_truth"]), len(item["prediction"]))
    return "too_long" if longest > 40 or len(pair_id) > 200 else None


@settings(max_examples=60)
@given(st.sampled_from(ROUTES), st.one_of(bodies, st.binary(max_size=200)), st.booleans())
def test_any_body_gets_an_answer(http: httpx.Client, route: str, body: bytes, says_json: bool) -> None:
    reply = http.post(route, content=body, headers={"Content-Type": "application/json"} if says_json else {})
    assert reply.status_code in (200, 404, 413, 422)
    answer = reply.json()
    if reply.status_code != 200:
        assert set(answer) == {"error"}
        assert set(answer["error"]) == {"code", "message", "details"}
        assert "Traceback" not in reply.text
        return
    sent = json.loads(body)
    if route == "/v1/judge":
        assert len(answer["results"]) == len(sent["pairs"]) == answer["judged"] + answer["unscorable"]
        for result, pair in zip(answer["results"], sent["pairs"], strict=True):
            assert result.get("reason") in ((flaw_of(pair),) if flaw_of(pair) else (None, "unknown_concept"))
            pair_id = pair.get("id") if isinstance(pair, dict) else None
            assert result.get("id") == (pair_id if is_text(pair_id) and len(pair_id) <= 200 else None)
    else:
        assert len(answer["classifications"]) == len(sent["ground_truths"])
