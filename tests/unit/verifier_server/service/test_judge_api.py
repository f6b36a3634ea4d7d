"""The typed API."""

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from speciarl.category import LABELS
from speciarl.utils.deadline import within
from speciarl.verdict import Pair, Verdict

pytestmark = pytest.mark.anyio

Make = Callable[..., Any]
JSON = {"Content-Type": "application/json"}


def pairs(*texts: tuple[str, str]) -> list[dict[str, str]]:
    return [{"ground_truth": truth, "prediction": prediction} for truth, prediction in texts]


async def test_one_result_per_pair_in_order(make_settings: Make, running: Make) -> None:
    async with running(make_settings()) as client:
        body = {"pairs": pairs(("samoyed", "dog"), ("cat", "dog"), ("samoyed", "animal"), ("dog", "samoyed"))}
        body["pairs"][2]["id"] = "third"
        reply = await client.post("/v1/judge", json=body)
        assert reply.status_code == 200
        answer = reply.json()
        assert (answer["judge"], answer["run"], answer["judged"], answer["unscorable"]) == ("gold", None, 3, 1)
        first, second, third, fourth = answer["results"]
        assert first == {
            "status": "verdict",
            "category": "less specific",
            "margin": None,
            "source": "taxonomy",
            "probabilities": None,
        }
        assert (second["status"], second["reason"]) == ("unscorable", "unknown_concept")
        assert "cat" in second["detail"]
        assert (third["category"], third["id"]) == ("generic", "third")
        assert fourth["category"] == "more specific"


@pytest.mark.parametrize("label", LABELS)
async def test_a_model_judges_with_margin_and_probabilities(
    make_settings: Make, running: Make, fake_judge: Make, label: str
) -> None:
    async with fake_judge().running() as judge, running(make_settings(judge.url)) as client:
        judge.answers = {"warbler": label}
        body = {"judge": "main", "pairs": pairs(("robin", "warbler"), ("robin", " Robin"), ("robin", "warbler"))}
        live, shortcut, again = (await client.post("/v1/judge", json=body)).json()["results"]
        assert (live["category"], live["source"]) == (label, "live")
        assert live["margin"] > 5
        assert sum(live["probabilities"]) == pytest.approx(1)
        assert (shortcut["category"], shortcut["source"], shortcut["margin"]) == ("specific", "shortcut", None)
        assert again == live | {"source": "memory"}


async def test_an_unknown_judge_is_told_the_known_ones(make_settings: Make, running: Make) -> None:
    async with running(make_settings()) as client:
        reply = await client.post("/v1/judge", json={"judge": "nope", "pairs": []})
        assert reply.status_code == 404
        assert reply.json()["error"]["code"] == "unknown_judge"
        assert "gold" in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({}, "body.pairs"),
        ({"pairs": "x"}, "body.pairs"),
        ({"pairs": {"ground_truth": "a", "prediction": "a"}}, "body.pairs"),
        ({"pairs": [], "model": "x"}, "body.model"),
        ({"pairs": [], "judge": "\ud83d"}, "body.judge"),
        ({"pairs": [], "run": "\ud83d"}, "body.run"),
        ({"pairs": [], "\ud83d": 1}, "body"),
        ({"pairs": [], "run": "../etc"}, "body.run"),
        ({"pairs": [], "deadline_s": 0}, "body.deadline_s"),
        ([], "body"),
    ],
)
async def test_a_malformed_body_is_refused_with_the_field(
    make_settings: Make, running: Make, body: Any, where: str
) -> None:
    async with running(make_settings()) as client:
        reply = await client.post("/v1/judge", content=json.dumps(body), headers=JSON)
        assert reply.status_code == 422
        error = reply.json()["error"]
        assert error["code"] == "invalid_request"
        assert error["message"].startswith(f"{where}:")
        assert [set(detail) for detail in error["details"]] == [{"where", "message"}] * len(error["details"])


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "NaN",
        '"\\ud800"',
        "[" * 100_000,
        '"\\ud800' + "[" * 100_000,
        '{"pairs": [{"ground_truth": "\\ud800", "prediction": NaN}]}',
        '{"pairs": [], "deadline_s": 1e999}',
        b'{"pairs": [{"ground_truth": "\xed\xa0\xbd", "prediction": "\\ud800"}]}',
        "",
    ],
)
async def test_what_is_no_json_is_refused(make_settings: Make, running: Make, content: str | bytes) -> None:
    async with running(make_settings()) as client:
        reply = await client.post("/v1/judge", content=content, headers=JSON)
        assert reply.status_code == 422
        assert reply.json()["error"]["code"] == "invalid_request"


@pytest.mark.parametrize(
    ("bad", "reason", "detail", "pair_id"),
    [
        ({"ground_truth": "dog"}, "malformed", "'prediction': ", None),
        ({"ground_truth": "dog", "prediction": None, "id": "7"}, "malformed", "'prediction': ", "7"),
        ({"ground_truth": 1, "prediction": "dog", "id": "7"}, "malformed", "'ground_truth': ", "7"),
        ({"ground_truth": "dog", "prediction": "a \ud83d b", "id": "7"}, "malformed", "'prediction': .*surrogate", "7"),
        ({"ground_truth": "dog", "prediction": "dog", "id": "7" * 201}, "too_long", "'id': ", None),
        ({"ground_truth": "dog", "prediction": "dog", "id": 7}, "malformed", "'id': ", None),
        ({"ground_truth": "dog", "prediction": "dog", "id": "\ud83d"}, "malformed", "'id': ", None),
        ({"ground_truth": "dog", "prediction": "dog", "label": "x"}, "malformed", "'label': ", None),
        ({"ground_truth": "dog", "prediction": "dog", "\ud83d": 1, "id": "7"}, "malformed", "'pair': ", None),
        ({"ground_truth": "dog", "prediction": "x" * 501, "id": "7"}, "too_long", "prediction of 501 ", "7"),
        ({}, "malformed", "'ground_truth': ", None),
        ("dog", "malformed", "'pair': ", None),
        (None, "malformed", "'pair': ", None),
        ([[[]]], "malformed", "'pair': ", None),
    ],
)
async def test_a_bad_pair_is_unscorable_in_its_place_and_fails_no_other(
    make_settings: Make, running: Make, tmp_path: Path, bad: Any, reason: str, detail: str, pair_id: str | None
) -> None:
    log = {"directory": str(tmp_path / "log")}
    async with running(make_settings(verdict_log=log, limits={"string_chars": 500})) as client:
        sent = [*pairs(("samoyed", "dog")), bad, *pairs(("samoyed", "animal"))]
        body = json.dumps({"run": "night", "pairs": sent})
        reply = await client.post("/v1/judge", content=body, headers=JSON)
        assert reply.status_code == 200
        answer = reply.json()
        assert (answer["judged"], answer["unscorable"]) == (2, 1)
        first, second, third = answer["results"]
        assert (first["category"], third["category"]) == ("less specific", "generic")
        assert (second["status"], second["reason"], second.get("id")) == ("unscorable", reason, pair_id)
        assert re.match(detail, second["detail"])
        # Counted and logged like every pair without a verdict.
        assert (await client.get("/v1/runs/night")).json()["unscorable"] == {reason: 1}
        row = (await client.get("/v1/runs/night/results")).json()["rows"][1]
        assert (row["reason"], row["detail"], row["pair_id"]) == (reason, second["detail"], pair_id)


async def test_a_failing_judge_is_unscorable_and_never_a_category(
    make_settings: Make, running: Make, fake_judge: Make
) -> None:
    async def broken(_: Any, __: Any) -> Any:
        from aiohttp import web

        return web.Response(status=500, text="boom")

    async with fake_judge().running() as judge, running(make_settings(judge.url)) as client:
        judge.arm(lambda number: broken if number < 2 else None)
        body = {"judge": "main", "pairs": pairs(("robin", "warbler"))}
        failed = (await client.post("/v1/judge", json=body)).json()
        assert (failed["judged"], failed["unscorable"]) == (0, 1)
        assert failed["results"][0]["reason"] == "http_error"
        assert (await client.post("/v1/judge", json=body)).json()["judged"] == 1


async def test_a_deadline_cuts_off_the_late_ones_only(make_settings: Make, running: Make, fake_judge: Make) -> None:
    async with fake_judge().running() as judge, running(make_settings(judge.url)) as client:
        judge.gate.clear()
        body = {"judge": "main", "deadline_s": 1, "pairs": pairs(("robin", "warbler"), ("robin", "robin"))}
        late, shortcut = (await client.post("/v1/judge", json=body)).json()["results"]
        assert (late["status"], late["reason"], shortcut["status"]) == ("unscorable", "timeout", "verdict")
        judge.arm()
        del body["deadline_s"]
        asyncio.get_running_loop().call_later(0.05, judge.gate.set)
        # The pair went on being judged, so asking again joins it and costs nothing.
        assert (await client.post("/v1/judge", json=body)).json()["judged"] == 2
        assert judge.chats == 0


async def test_nothing_is_judged_for_a_client_that_went_away(
    make_settings: Make, running: Make, fake_judge: Make
) -> None:
    async with fake_judge().running() as judge, running(make_settings(judge.url)) as client:
        judge.gate.clear()
        app = client._transport.app
        core = app.state.core
        _, verifier = core.judges.get("main")
        body = json.dumps({"judge": "main", "pairs": pairs(("robin", "warbler"), ("dog", "cat"))}).encode()
        messages = [{"type": "http.request", "body": body, "more_body": False}]
        gone = asyncio.Event()

        async def receive() -> dict[str, Any]:
            if messages:
                return messages.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(_: Any) -> None:
            """Nobody reads it."""

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/judge",
            "query_string": b"",
            "headers": [(b"content-type", b"application/json")],
        }
        call = asyncio.create_task(app(scope, receive, send))
        other = asyncio.create_task(verifier.verify(Pair("robin", "warbler")))
        while verifier.stats()["in_flight"] < 2:
            await asyncio.sleep(0.005)
        assert core.admission.waiting == 2
        gone.set()
        await within(30, call)  # the judge is still at work
        assert not other.done()
        judge.gate.set()
        assert core.admission.waiting == 0
        assert (verifier.stats()["abandoned"], verifier.stats()["dropped"], verifier.stats()["in_flight"]) == (2, 1, 1)
        assert "speciarl_service_clients_gone_total 1.0" in (await client.get("/metrics")).text
        # Somebody else who waits for the same pair still gets its verdict.
        assert isinstance(await other, Verdict)


async def test_judges_are_described(make_settings: Make, running: Make, fake_judge: Make) -> None:
    async with fake_judge().running() as judge:
        url = judge.url.replace("http://", "http://user:secret@")
        settings = make_settings(url, main={"revision": "abc"})
        async with running(settings) as client:
            answer = (await client.get("/v1/judges")).json()
            gold, main = answer["judges"]
            assert (gold["name"], gold["kind"], gold["state"], gold["prompt"]) == ("gold", "taxonomy", "ready", None)
            assert (main["model"], main["revision"], main["prompt"]) == ("fake", "abc", "compact")
            assert main["decoding"] == "first_token"
            assert len(main["prompt_hash"]) == 64
            assert main["endpoints"] == [judge.url]
            assert "secret" not in json.dumps(answer)


async def test_hanging_up_is_noticed(make_settings: Make, listening: Make, fake_judge: Make) -> None:
    async with (
        fake_judge().running() as judge,
        listening(make_settings(judge.url)) as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        while (await client.get("/ready")).status_code != 200:
            await asyncio.sleep(0.01)
        judge.gate.clear()
        body = {"judge": "main", "pairs": pairs(("robin", "warbler"))}
        with pytest.raises(httpx.ReadTimeout):
            await client.post("/v1/judge", json=body, timeout=httpx.Timeout(30, read=0.2))
        expires = asyncio.get_running_loop().time() + 30
        while "speciarl_service_clients_gone_total 1.0" not in (await client.get("/metrics")).text:
            assert asyncio.get_running_loop().time() < expires
            await asyncio.sleep(0.02)
        judge.gate.set()
