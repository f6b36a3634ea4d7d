"""The wire format of the paper's release."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from speciarl.category import LABELS, Category
from speciarl.verifier_server.service.compatible.classify import binary_word, find_judge, spread
from speciarl.verifier_server.service.config import BinaryConfig, is_run_name, parse_settings
from speciarl.verifier_server.service.errors import ApiError
from speciarl.verifier_server.service.runs.registry import run_name

pytestmark = pytest.mark.anyio

Make = Callable[..., Any]
STANDARD = "/api/v1/classify/standard"
BINARY = "/api/v1/classify/binary"
TREE = {"kind": "taxonomy", "taxonomy": "tree.json"}
ALIASED = parse_settings(
    {
        "judges": {"one": TREE, "two": TREE, "half": TREE},
        "default_judge": "two",
        "default_binary_judge": "half",
        "aliases": [
            {"model": "org/Model-1", "judge": "one"},
            {"model": "org/Model-1", "prompt": "strict", "judge": "two"},
            {"model": "org/Model-2", "prompt": "*", "judge": "two"},
            {"prompt": "loose", "judge": "one"},
            {"model": [None, "org/Model-3"], "prompt": ["lax", "laxer"], "judge": "two"},
            {"model": "org/Model-1", "judge": "half", "binary": True},
        ],
    }
)


def body(*pairs: tuple[str, str], **more: Any) -> dict[str, Any]:
    return {"ground_truths": [truth for truth, _ in pairs], "predictions": [said for _, said in pairs]} | more


async def test_label_words_in_order(make_settings: Make, running: Make) -> None:
    async with running(make_settings()) as client:
        pairs = [("samoyed", "animal"), ("samoyed", "dog"), ("dog", "dog"), ("dog", "samoyed"), ("dog", "cat")]
        reply = await client.post(STANDARD, json=body(*pairs, ("dog", "none")))
        assert reply.status_code == 200
        assert reply.json() == {
            "classifications": ["generic", "less specific", "specific", "more specific", "wrong", "abstain"]
        }
        reply = await client.post(BINARY, json=body(*pairs))
        assert reply.json() == {"classifications": ["wrong", "wrong", "correct", "correct", "wrong"]}
        assert (await client.post(STANDARD, json=body())).json() == {"classifications": []}


@pytest.mark.parametrize(
    ("model", "prompt", "binary", "judge"),
    [
        (None, None, False, "two"),
        (None, None, True, "half"),
        ("one", None, False, "one"),
        ("half", None, True, "half"),
        ("org/Model-1", None, False, "one"),
        ("org/Model-1", "strict", False, "two"),
        ("org/Model-1", None, True, "half"),
        ("org/Model-2", None, False, "two"),
        ("org/Model-2", "whatever", False, "two"),
        (None, "loose", False, "one"),
        (None, "lax", False, "two"),
        ("org/Model-3", "laxer", False, "two"),
    ],
)
def test_names_of_clients_stand_for_judges(model: str | None, prompt: str | None, binary: bool, judge: str) -> None:
    assert find_judge(ALIASED, model, prompt, binary) == judge


@pytest.mark.parametrize(
    ("model", "prompt", "binary"),
    [
        ("org/Model-3", None, False),
        ("org/Model-1", "typo", False),
        ("org/Model-1", "strict", True),
        ("one", "strict", False),
        (None, "typo", False),
        ("org/Model-3", "loose", False),
        ("", None, False),
    ],
)
def test_an_unknown_name_is_no_judge_but_a_list_of_them(model: str, prompt: str, binary: bool) -> None:
    with pytest.raises(ApiError) as caught:
        find_judge(ALIASED, model, prompt, binary)
    assert caught.value.status == 404
    assert {"model": "one", "verifier_prompt": None} in caught.value.details
    assert {"model": "org/Model-1", "verifier_prompt": None} in caught.value.details
    assert ({"model": "org/Model-3", "verifier_prompt": "lax"} in caught.value.details) is not binary
    assert "known models: one, two, half, org/Model-1" in caught.value.message


async def test_an_unscorable_pair_is_an_error_and_no_label(make_settings: Make, running: Make) -> None:
    async with running(make_settings()) as client:
        for route in (STANDARD, BINARY):
            reply = await client.post(route, json=body(("dog", "dog"), ("cat", "dog"), ("fox", "dog")))
            assert reply.status_code == 422
            error = reply.json()["error"]
            assert error["code"] == "unscorable"
            assert error["message"].startswith("2 of 3 pairs have no verdict; pair 1: unknown_concept: ")
            assert [(detail["index"], detail["reason"]) for detail in error["details"]] == [
                (1, "unknown_concept"),
                (2, "unknown_concept"),
            ]
            assert "classifications" not in reply.json()


@pytest.mark.parametrize(("fault", "status", "waits"), [(503, 503, True), (400, 502, False)])
async def test_a_judges_trouble_tells_clients_whether_to_come_back(
    make_settings: Make, running: Make, fake_judge: Make, fault: int, status: int, waits: bool
) -> None:
    async def broken(_: Any, __: Any) -> Any:
        return web.Response(status=fault, text="no")

    patience = {"total_deadline_s": 1 if waits else 120}
    async with fake_judge().running() as judge, running(make_settings(judge.url, main=patience)) as client:
        judge.arm(lambda _: broken)
        reply = await client.post(STANDARD, json=body(("dog", "wolf"), model="main"))
        assert reply.status_code == status
        assert ("Retry-After" in reply.headers) is waits


@pytest.mark.parametrize(
    "wrong",
    [
        {"ground_truths": ["a"]},
        body(("a", "b")) | {"predictions": []},
        {"ground_truths": "a", "predictions": "b"},
        body(("a", "b"), ("a", "\ud83d")),
        body(("a", "b"), extra_info="\ud83d"),
    ],
)
async def test_malformed_bodies_are_refused(make_settings: Make, running: Make, wrong: dict[str, Any]) -> None:
    async with running(make_settings()) as client:
        reply = await client.post(STANDARD, content=json.dumps(wrong), headers={"Content-Type": "application/json"})
        assert reply.status_code == 422
        assert reply.json()["error"]["code"] == "invalid_request"


async def test_fields_of_other_releases_are_no_obstacle(make_settings: Make, running: Make) -> None:
    async with running(make_settings()) as client:
        more = {"batch_size": 8, "extra_info": None, "model": None, "verifier_prompt": None, "run_name": None}
        assert (await client.post(STANDARD, json=body(("dog", "dog"), **more))).status_code == 200


async def test_extra_info_that_cannot_be_kept_is_refused(make_settings: Make, running: Make) -> None:
    async with running(make_settings()) as client:
        deep = '{"ground_truths": ["dog"], "predictions": ["dog"], "extra_info": ' + "[" * 900 + "]" * 900 + "}"
        reply = await client.post(STANDARD, content=deep, headers={"Content-Type": "application/json"})
        assert reply.status_code == 422
        assert "extra_info" in reply.json()["error"]["message"]


def test_extra_info_belongs_to_pairs_or_to_all() -> None:
    assert spread(None, 2) == [None, None]
    assert spread({"a": 1}, 2) == ['{"a":1}', '{"a":1}']
    assert spread([{"a": 1}, None], 2) == ['{"a":1}', None]
    for other in ([], [1], [1, 2, 3]):
        with pytest.raises(ApiError, match=rf"extra_info: {len(other)} entries for 2 pairs") as caught:
            spread(other, 2)
        assert caught.value.status == 422


@pytest.mark.parametrize("least", LABELS)
def test_two_words_split_the_ladder_once(least: str) -> None:
    words = [binary_word(category, BinaryConfig(least=least, right="yes", wrong="no")) for category in Category]
    assert words == ["no"] * LABELS.index(least) + ["yes"] * (6 - LABELS.index(least))


@given(st.text(max_size=300))
def test_every_name_of_a_client_is_a_run_name(text: str) -> None:
    assert is_run_name(run_name(text))
    assert not is_run_name(text) or run_name(text) == text
