"""Whatever is sent, the answer is one the OpenAPI document describes, and never a fault of the service."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openapi_answers import CHECKS
from schemathesis import Case, GenerationMode
from schemathesis.checks import ignored_auth, negative_data_rejection, not_a_server_error, unsupported_method
from schemathesis.specs.openapi.checks import allow_header_conformance, positive_data_acceptance

from speciarl.category import Category
from speciarl.verdict import Judgement, Pair, Reason, Source, Unscorable, Verdict
from speciarl.verifier_server.config import VerifierConfig
from speciarl.verifier_server.service.app import create_app
from speciarl.verifier_server.service.config import parse_settings

KEY = "sesame-open"
RUN = "cub200-seed42"
"""The document's example of a run."""
EMPTY = "empty"
"""Another run, without a pair."""
REASONS = (Reason.UNKNOWN_CONCEPT, Reason.TIMEOUT, Reason.OFF_LABEL)
"""The compatible API answers 422, 503 and 502 to them."""
ALL_CHECKS = [
    *CHECKS,
    not_a_server_error,
    positive_data_acceptance,
    negative_data_rejection,
    unsupported_method,
    allow_header_conformance,
    ignored_auth,
]
ANSWERS = {
    "POST /v1/judge": {200, 401, 404, 422},
    "GET /v1/judges": {200, 401},
    "POST /api/v1/classify/standard": {200, 401, 404, 422},
    "POST /api/v1/classify/binary": {200, 401, 404, 422},
    "GET /api/v1/models": {200, 401},
    "GET /api/v1/prompts": {200, 401},
    "GET /api/v1/schema": {200, 401},
    "GET /api/v1/runs/{run}/status": {200, 401, 422},
    "GET /api/v1/runs/{run}/results": {200, 401, 404, 422},
    "GET /v1/runs": {200, 401},
    "GET /v1/runs/{run}": {200, 401, 404, 422},
    "GET /v1/runs/{run}/results": {200, 401, 404, 422},
    "GET /metrics": {200, 401},
    "GET /health": {200},
    "GET /ready": {200},
}
"""Every operation, and statuses with which it must have answered generated requests."""


class FakeVerifier:
    """Judges by the length of the prediction: each category in turn, then each of REASONS."""

    def __init__(self, config: VerifierConfig) -> None:
        self.decoding = "choice" if config.model else None
        self.prompt = SimpleNamespace(content_hash="0a1b" if config.model else None)

    async def start(self) -> None:
        """Needs nothing."""

    def recall(self, pair: Pair, times: int = 1) -> None:
        return None

    async def verify(self, pair: Pair) -> Judgement:
        """At once."""
        turn = len(pair.prediction) % 9
        if turn > 5:
            return Unscorable(REASONS[turn - 6], "fake")
        margin, probabilities = (turn / 3, (1 / 6,) * 6) if turn % 2 else (None, None)
        return Verdict(Category(turn), margin, list(Source)[turn % 5], probabilities)

    def stats(self) -> dict[str, float]:
        """Counts nothing."""
        return {"requests": 0.0}

    async def aclose(self) -> None:
        """Holds nothing."""


@pytest.fixture
def document(tmp_path: Path) -> Any:
    """The document of a service in process, with a key, small limits, and two runs in its verdict log.

    Schemathesis starts the service and stops it with the test.
    """
    (tmp_path / "key").write_text(KEY)
    config = parse_settings(
        {
            "judges": {
                "gold": {"kind": "taxonomy", "taxonomy": "none needed", "max_string_chars": 40},
                "main": {"model": "fake", "revision": "abc", "endpoints": ["http://none"], "max_string_chars": 40},
            },
            "aliases": [{"model": "paper", "prompt": [None, "*"], "judge": "main"}],
            "store": None,
            "key_file": str(tmp_path / "key"),
            "limits": {"string_chars": 40, "body_bytes": 20_000, "pairs_per_request": 9, "runs": 2},
            "verdict_log": {"directory": str(tmp_path / "log"), "flush_s": 0.2},
        }
    )
    app = create_app(config, build_verifier=FakeVerifier)
    document = schemathesis.openapi.from_asgi("/openapi.json", app, headers=HEADERS)
    document.config.checks.not_a_server_error.expected_statuses = ["2xx", "4xx", "502", "503"]
    document.config.checks.positive_data_acceptance.expected_statuses += ["413"]
    while document["/ready"]["GET"].Case().call().status_code != 200:
        """It starts in an instant."""
    old = compatible_body(1, run_name=RUN, model="paper", extra_info={"image": 7})
    for route, body in ((TYPED, typed_body(*range(9), run=RUN)), (COMPATIBLE[0], old), (TYPED, typed_body(run=EMPTY))):
        assert send(document, route, json.dumps(body).encode()).status_code == 200
    return document


TYPED, *COMPATIBLE = ROUTES = [label.removeprefix("POST ") for label in ANSWERS if label.startswith("POST ")]
HEADERS = {"Authorization": f"Bearer {KEY}"}


def send(document: Any, route: str, body: bytes, media_type: str = "application/json") -> Any:
    """The answer to a body, held to the document."""
    case = document[route]["POST"].Case(body=body, media_type=media_type)
    return case.call_and_validate(headers=HEADERS, checks=CHECKS)


def test_operations_are_the_documents(document: Any) -> None:
    assert {result.ok().label for result in document.get_all_operations()} == set(ANSWERS)


@pytest.mark.parametrize("label", ANSWERS)
def test_answers_are_as_the_document_says(document: Any, label: str) -> None:
    operation = document.find_operation_by_label(label)
    # No schema says that two lists are equally long; and that a pair cannot be judged is no fault of the request.
    excluded = [positive_data_acceptance] if "classify" in label else []
    answered: set[int] = set()

    def call(case: Case) -> None:
        reply = case.call_and_validate(headers=HEADERS, checks=ALL_CHECKS, excluded_checks=excluded)
        answered.add(reply.status_code)

    modes, config = list(GenerationMode), document.config.generation
    for case in document.iter_coverage_cases(operation, generation_modes=modes, generation_config=config):
        call(case)
    generate = settings(max_examples=12, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    for mode in modes:
        if mode is GenerationMode.POSITIVE or operation.body or operation.query or operation.path_parameters:
            generate(given(operation.as_strategy(generation_mode=mode))(call))()
    assert answered >= ANSWERS[label]


MEDIA_TYPES = ["application/json", "text/plain"]


def typed_body(*lengths: int, **more: Any) -> dict[str, Any]:
    ids = [{"id": str(length)} if length % 2 else {} for length in lengths]
    pairs = [{"ground_truth": "dog", "prediction": "x" * length} for length in lengths]
    return {"pairs": [pair | pair_id for pair, pair_id in zip(pairs, ids, strict=True)]} | more


def compatible_body(*lengths: int, **more: Any) -> dict[str, Any]:
    return {"ground_truths": ["dog"] * len(lengths), "predictions": ["x" * length for length in lengths]} | more


RARE = [
    (TYPED, typed_body(*range(9)), 200),
    (TYPED, typed_body(1, judge="nope"), 404),
    (TYPED, typed_body(1, run="third"), 409),
    (TYPED, typed_body(*range(10)), 413),
    (TYPED, typed_body(20_000), 413),
    *(
        (route, body, status)
        for route in COMPATIBLE
        for body, status in [
            (compatible_body(*range(6)), 200),
            (compatible_body(1, model="nope"), 404),
            (compatible_body(1, run_name="third"), 409),
            (compatible_body(*range(10)), 413),
            (compatible_body(20_000), 413),
            (compatible_body(1, 6), 422),
            (compatible_body(1, 41), 422),
            (compatible_body(1, 8), 502),
            (compatible_body(1, 7), 503),
        ]
    ),
]


def test_rare_answers_are_as_the_document_says(document: Any) -> None:
    assert [send(document, route, json.dumps(body).encode()).status_code for route, body, _ in RARE] == [
        status for _, _, status in RARE
    ]
    page = document["/v1/runs/{run}/results"]["GET"].Case(path_parameters={"run": EMPTY})
    assert page.call_and_validate(headers=HEADERS, checks=CHECKS).json()["next"] is None


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
    optional={"judge": st.one_of(st.just("gold"), plain), "run": st.one_of(st.sampled_from([RUN, EMPTY]), plain)},
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


@settings(max_examples=60, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(ROUTES), st.one_of(bodies, st.binary(max_size=200)), st.sampled_from(MEDIA_TYPES))
def test_any_body_gets_an_answer(document: Any, route: str, body: bytes, media_type: str) -> None:
    reply = send(document, route, body, media_type)
    assert reply.status_code != 500
    if reply.status_code != 200:
        assert b"Traceback" not in reply.content
        return
    answer, sent = reply.json(), json.loads(body)
    if route == TYPED:
        assert len(answer["results"]) == len(sent["pairs"]) == answer["judged"] + answer["unscorable"]
        for result, pair in zip(answer["results"], sent["pairs"], strict=True):
            assert result.get("reason") in ((flaw_of(pair),) if flaw_of(pair) else (None, *REASONS))
            pair_id = pair.get("id") if isinstance(pair, dict) else None
            assert result.get("id") == (pair_id if is_text(pair_id) and len(pair_id) <= 200 else None)
    else:
        assert len(answer["classifications"]) == len(sent["ground_truths"])
