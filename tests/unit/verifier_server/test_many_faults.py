"""The many-pairs mode end to end, against a server that mistreats single pairs."""

import asyncio
import contextlib
import json
import random
import re
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest
from aiohttp import web

from speciarl.category import Category
from speciarl.errors import ConfigError, VerifierStartError
from speciarl.utils.deadline import within
from speciarl.verdict import Pair, Reason, Unscorable, Verdict
from speciarl.verifier_server.config import parse_config
from speciarl.verifier_server.judge.prompt import load_prompt
from speciarl.verifier_server.llm_verifier import LLMVerifier

pytestmark = pytest.mark.anyio

MakeJudge = Callable[[], Any]
GOLDEN = {golden.pair: min(golden.expected).label for golden in load_prompt("many").golden}


def label_of(entry: Mapping[str, Any]) -> str:
    pair = Pair(entry["ground_truth"], entry["prediction"])
    return GOLDEN.get(pair) or ("generic" if entry["prediction"].startswith("cat") else "wrong")


def answering(change: Callable[[list[Any], list[Any]], Any] = lambda entries, _: entries) -> Callable[[int], Any]:
    """A plan for FakeJudge: reply for every pair, obeying the schema's labels, after a change to the entries."""

    async def reply(judge: Any, _: web.Request) -> web.StreamResponse:
        body = judge.requests[-1]
        asked = json.loads(body["messages"][-1]["content"])
        pattern = body.get("structured_outputs", {}).get("regex")
        schema = body.get("response_format", {}).get("json_schema", {}).get("schema")
        allowed = None
        if pattern:
            allowed = re.search(r"\((.*?)\)", pattern).group(1).replace("\\", "").split("|")  # type: ignore[union-attr]
        elif schema:
            allowed = schema["properties"]["verdicts"]["items"]["properties"]["category"]["enum"]
        entries = []
        for entry in asked:
            label = label_of(entry)
            entries.append({"id": entry["id"], "category": label if not allowed or label in allowed else allowed[0]})
        return say(json.dumps({"verdicts": change(entries, asked)}))

    return lambda _: reply


def say(content: str) -> web.Response:
    message = {"role": "assistant", "content": content}
    return web.json_response({"choices": [{"message": message, "finish_reason": "stop"}]})


@contextlib.asynccontextmanager
async def started(judge: Any, **changes: Any) -> AsyncIterator[LLMVerifier]:
    defaults = {"model": "fake", "prompt": "many", "pairs_per_request": 8, "gather_s": 0.01, "kind": "openai"}
    limits = {"request_timeout_s": 60, "total_deadline_s": 120, "backoff_s": 0.01, "startup_deadline_s": 30}
    config = parse_config(defaults | limits | {"endpoints": [judge.url]} | changes)
    verifier = LLMVerifier(config, random.Random(0))
    await verifier.start()
    try:
        yield verifier
    finally:
        await verifier.aclose()


async def judged(verifier: LLMVerifier, count: int) -> list[Any]:
    pairs = [Pair("lion", f"cat {number}" if number % 2 else f"dog {number}") for number in range(count)]
    return list(await asyncio.gather(*map(verifier.verify, pairs)))


def are_right(judgements: list[Any]) -> bool:
    wanted = [Category.GENERIC if number % 2 else Category.WRONG for number in range(len(judgements))]
    return [judgement.category for judgement in judgements] == wanted


@pytest.mark.parametrize(("kind", "mode"), [("openai", "many_json"), ("vllm", "many_structured")])
async def test_pairs_share_requests_and_get_their_own_verdicts(fake_judge: MakeJudge, kind: str, mode: str) -> None:
    async with fake_judge().running() as judge:
        judge.max_model_len = 100_000
        judge.plan = answering()
        async with started(judge, kind=kind) as verifier:
            assert verifier.decoding == mode
            judge.arm()
            judgements = await judged(verifier, 20)
            assert are_right(judgements)
            assert judge.chats == 3
            stats = verifier.stats()
            assert (stats["live"], stats["attempts"], stats["retries"]) == (20, 3, 0)
            assert are_right(await judged(verifier, 20))  # remembered one by one
            assert judge.chats == 3


async def test_an_api_without_constraints_is_read_all_the_same(fake_judge: MakeJudge) -> None:
    async with fake_judge().running() as judge:
        obedient = answering()

        async def deaf(judge: Any, request: web.Request) -> web.StreamResponse:
            judge.requests[-1].pop("response_format", None)
            response: web.StreamResponse = await obedient(0)(judge, request)
            return response

        judge.plan = lambda _: deaf
        async with started(judge) as verifier:
            assert verifier.decoding == "many_text"
            assert are_right(await judged(verifier, 9))


CHANGES: dict[str, Callable[[list[Any], list[Any]], Any]] = {
    "the first is missing": lambda entries, _: entries[1:] if len(entries) > 1 else entries,
    "the last comes twice": lambda entries, _: [*entries, entries[-1]] if len(entries) > 1 else entries,
    "all alien": lambda entries, _: [e | {"id": i} for i, e in enumerate(entries)] if len(entries) > 1 else entries,
    "no label": lambda entries, _: [{**entries[0], "category": "hm"}, *entries[1:]] if len(entries) > 2 else entries,
    "no list": lambda entries, _: "sorry" if len(entries) > 3 else entries,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_what_one_request_loses_a_smaller_one_finds(fake_judge: MakeJudge, change: Any) -> None:
    async with fake_judge().running() as judge:
        judge.plan = answering()
        async with started(judge) as verifier:
            judge.arm(answering(change))
            assert are_right(await judged(verifier, 8))
            assert verifier.stats()["unscorable"] == 0
            assert judge.chats > 1


async def test_a_pair_that_can_never_be_read_is_alone_in_its_misfortune(fake_judge: MakeJudge) -> None:
    def forget(entries: list[Any], asked: list[Any]) -> Any:
        lost = {entry["id"] for entry in asked if entry["prediction"] in ("dog 2", "cat 5")}
        return [entry for entry in entries if entry["id"] not in lost]

    async with fake_judge().running() as judge:
        judge.plan = answering()
        async with started(judge, retries=1) as verifier:
            judge.arm(answering(forget))
            judgements = await judged(verifier, 8)
            lost = [index for index, judgement in enumerate(judgements) if isinstance(judgement, Unscorable)]
            assert lost == [2, 5]
            assert all(judgements[index].reason is Reason.MALFORMED for index in lost)
            assert "the reply lacks the pair" in judgements[2].detail
            assert verifier.stats()["unscorable/malformed"] == 2
            judge.arm(answering())  # a failure is not remembered
            assert are_right(await judged(verifier, 8))


async def test_a_pair_that_the_api_refuses_does_not_take_the_others_along(fake_judge: MakeJudge) -> None:
    async with fake_judge().running() as judge:
        answer = answering()
        judge.plan = answer
        async with started(judge) as verifier:

            async def squeamish(judge: Any, request: web.Request) -> web.StreamResponse:
                if "dog 4" in judge.requests[-1]["messages"][-1]["content"]:
                    return web.json_response({"error": {"message": "content policy"}}, status=400)
                response: web.StreamResponse = await answer(0)(judge, request)
                return response

            judge.arm(lambda _: squeamish)
            judgements = await judged(verifier, 8)
            assert [isinstance(judgement, Verdict) for judgement in judgements] == [n != 4 for n in range(8)]
            assert "content policy" in judgements[4].detail


@pytest.mark.parametrize("status", [503, 401])
async def test_a_server_that_is_gone_fails_all_in_bounded_time(fake_judge: MakeJudge, status: int) -> None:
    async def gone(_: Any, __: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text="no")

    async with fake_judge().running() as judge:
        judge.plan = answering()
        async with started(judge, retries=1, total_deadline_s=1) as verifier:
            judge.arm(lambda _: gone)
            judgements = await within(30, judged(verifier, 8))
            assert all(isinstance(judgement, Unscorable) for judgement in judgements)
            assert judge.chats <= 16


async def test_the_local_queue_counts_pairs_and_not_requests(fake_judge: MakeJudge) -> None:
    async with fake_judge().running() as judge:
        answer = answering()

        async def held(judge: Any, request: web.Request) -> web.StreamResponse:
            await judge.gate.wait()
            response: web.StreamResponse = await answer(0)(judge, request)
            return response

        judge.plan = answer
        async with started(judge, max_concurrency=1, max_waiting=10) as verifier:
            judge.arm(lambda _: held)
            judge.gate.clear()
            waiting = asyncio.create_task(judged(verifier, 24))  # eight are asked about, eight wait, eight are too many
            expires = asyncio.get_running_loop().time() + 30
            while verifier.stats()["rejected"] < 8 or judge.chats < 1:
                assert asyncio.get_running_loop().time() < expires
                await asyncio.sleep(0.01)
            assert verifier.stats()["waiting"] == 8
            judge.gate.set()
            judgements = await within(30, waiting)
            assert are_right(judgements[:16])
            assert {one.reason for one in judgements[16:]} == {Reason.OVERLOADED}
            assert (judge.chats, verifier.stats()["rejected"], verifier.stats()["waiting"]) == (2, 8, 0)


async def test_who_leaves_takes_nothing_from_companions_and_the_last_breaks_the_request_off(
    fake_judge: MakeJudge,
) -> None:
    async with fake_judge().running() as judge:
        answer = answering()

        async def held(judge: Any, request: web.Request) -> web.StreamResponse:
            await judge.gate.wait()
            response: web.StreamResponse = await answer(0)(judge, request)
            return response

        judge.plan = answer
        async with started(judge) as verifier:
            judge.arm(lambda _: held)
            judge.gate.clear()
            pairs = [Pair("lion", f"cat {number}") for number in range(16)]
            tasks = [asyncio.create_task(verifier.verify(pair)) for pair in pairs]  # in two requests

            async def until(condition: Callable[[], bool]) -> None:
                expires = asyncio.get_running_loop().time() + 30
                while not condition():
                    assert asyncio.get_running_loop().time() < expires
                    await asyncio.sleep(0.01)

            await until(lambda: judge.chats == 2)
            for leaving in (*tasks[:3], *tasks[8:]):  # three of the first request, all of the second
                leaving.cancel()
            await until(lambda: verifier.endpoint_stats()[0].in_flight == 1)
            assert verifier.stats()["in_flight"] == 5
            judge.gate.set()
            kept = await within(30, asyncio.gather(*tasks[3:8]))
            assert [judgement.category for judgement in kept] == [Category.GENERIC] * 5
            assert (judge.chats, verifier.stats()["dropped"], verifier.stats()["unscorable"]) == (2, 11, 0)


async def test_a_failing_golden_pair_is_named(fake_judge: MakeJudge) -> None:
    async with fake_judge().running() as judge:
        flip = {"sea otter or beaver": "specific"}
        judge.plan = answering(
            lambda entries, asked: [
                entry | {"category": flip.get(pair["prediction"], entry["category"])}
                for entry, pair in zip(entries, asked, strict=True)
            ]
        )
        with pytest.raises(VerifierStartError, match=r"'sea otter or beaver' was judged 'specific', expected 'wrong'"):
            async with started(judge):
                pass


async def test_all_pairs_of_a_request_must_fit(fake_judge: MakeJudge) -> None:
    async with fake_judge().running() as judge:
        judge.plan = answering()
        with pytest.raises(
            VerifierStartError, match=r"pairs_per_request=8 needs \d+ tokens.*lower `pairs_per_request`"
        ):
            async with started(judge, kind="vllm"):
                pass


def test_a_prompt_for_one_pair_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="needs a prompt of format many"):
        LLMVerifier(parse_config({"model": "m", "endpoints": ["http://h"], "pairs_per_request": 4}))
