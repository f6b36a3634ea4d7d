"""The OpenAPI document: everything is described, and every route names the failures it may have and no others."""

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from speciarl.category import LABELS
from speciarl.verifier_server.service import app as app_module
from speciarl.verifier_server.service.app import create_app
from speciarl.verifier_server.service.errors import CODES, JUDGING, responses

Make = Callable[..., Any]
SERVICE = Path(app_module.__file__).parent
DOCS = Path(__file__).parents[4] / "docs" / "verifier_service.md"
JUDGES = {404, 408, 409, 413, 422, 429, 500, 503}
FAILURES = {
    "POST /v1/judge": JUDGES,
    "GET /v1/judges": {500},
    "POST /api/v1/classify/standard": JUDGES | {502},
    "POST /api/v1/classify/binary": JUDGES | {502},
    "GET /api/v1/models": {500},
    "GET /api/v1/prompts": {500},
    "GET /api/v1/schema": {500},
    "GET /api/v1/runs/{run}/status": {422, 500},
    "GET /api/v1/runs/{run}/results": {404, 409, 410, 422, 500},
    "GET /v1/runs": {500},
    "GET /v1/runs/{run}": {404, 422, 500},
    "GET /v1/runs/{run}/results": {404, 409, 410, 422, 500},
    "GET /metrics": {500},
    "GET /health": set(),
    "GET /ready": {503},
}
OPEN = {"GET /health", "GET /ready"}


@pytest.fixture(params=[False, True], ids=["without key", "with key"])
def has_key(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def document(make_settings: Make, tmp_path: Path, has_key: bool) -> dict[str, Any]:
    (tmp_path / "key").write_text("sesame")
    keyed = {"key_file": str(tmp_path / "key")} if has_key else {}
    return create_app(make_settings(**keyed)).openapi()


def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def test_every_schema_and_property_is_described(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    assert len(schemas) > 15
    bare = [name for name, schema in schemas.items() if not schema.get("description")]
    bare += [
        f"{name}.{key}"
        for name, schema in schemas.items()
        for key, field in schema.get("properties", {}).items()
        if not field.get("description")
    ]
    assert bare == []


def test_every_route_and_parameter_is_described(document: dict[str, Any]) -> None:
    for name, operation in operations(document).items():
        assert operation["summary"], name
        assert operation["description"], name
        assert all(parameter["description"] for parameter in operation.get("parameters", ())), name
        assert all(reply["description"] and reply["content"] for reply in operation["responses"].values()), name
        for reply in operation["responses"].values():
            assert all(content.get("schema") for content in reply["content"].values()), name


def test_every_route_has_the_failures_it_may_have(document: dict[str, Any], has_key: bool) -> None:
    found = {name: set(operation["responses"]) for name, operation in operations(document).items()}
    expected = {
        name: {"200", *map(str, statuses)} | ({"401"} if has_key and name not in OPEN else set())
        for name, statuses in FAILURES.items()
    }
    assert found == expected
    secured = {name for name, operation in operations(document).items() if operation.get("security")}
    assert secured == (set(FAILURES) - OPEN if has_key else set())


def test_label_words_are_listed(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    assert schemas["ClassifyResponse"]["properties"]["classifications"]["items"]["enum"] == list(LABELS)
    assert schemas["VerdictResult"]["properties"]["category"]["enum"] == list(LABELS)
    assert "`binary.right`" in schemas["BinaryResponse"]["properties"]["classifications"]["description"]


def test_a_failure_is_told_with_its_codes() -> None:
    told = responses("unknown_judge", "unknown_run", "internal")
    assert set(told) == {404, 500}
    assert told[404]["description"] == "`unknown_judge`: there is no such judge; `unknown_run`: there is no such run"
    error = told[404]["content"]["application/json"]["schema"]["properties"]["error"]
    assert error["properties"]["code"]["enum"] == ["unknown_judge", "unknown_run"]
    assert [list(told.get("headers", ())) for told in responses("unauthorized", "overloaded", "internal").values()] == [
        ["WWW-Authenticate"],
        ["Retry-After"],
        [],
    ]


def raised() -> set[tuple[int, str]]:
    """Status and code of every ApiError that is made with both in plain sight."""
    calls = (node for file in SERVICE.glob("*.py") for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    return {
        (node.args[0].value, node.args[1].value)
        for node in calls
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "ApiError"
        if isinstance(node.args[0], ast.Constant) and isinstance(node.args[1], ast.Constant)
    }


def test_every_error_is_known() -> None:
    assert raised()
    assert raised() <= set(CODES)
    assert set(JUDGING) <= {code for _, code in CODES}


def test_the_documentation_has_every_error() -> None:
    rows = re.findall(r"^\| (\d{3}) \| (.*?) \|", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    documented = {(int(status), code) for status, codes in rows for code in re.findall(r"`(\w+)`", codes)}
    assert documented == set(CODES)
