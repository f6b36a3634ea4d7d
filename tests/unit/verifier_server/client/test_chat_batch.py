"""Chats that share an HTTP request: the same verdicts, and no one pays for a neighbour."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from speciarl.utils.deadline import within
from speciarl.verdict import Judgement, Pair, Reason, Unscorable, Verdict
from speciarl.verifier_server.client.chat_batch import merge, split
from speciarl.verifier_server.config import parse_config
from speciarl.verifier_server.llm_verifier import LLMVerifier

pytestmark = pytest.mark.anyio

MakeJudge = Callable[[], Any]
PAIRS = [Pair("lion", f"cat {index}") for index in range(40)]
ANSWERS = {"cat 3": "generic", "cat 17": "more specific", "cat 20": "abstain", "cat 39": "less specific"}


@contextlib.asynccontextmanager
async def judged_by(make: MakeJudge, count: int = 1, **changes: Any) -> AsyncIterator[tuple[LLMVerifier, list[Any]]]:
    """A verifier, and judges that take several chats in one request."""
    defaults = {
        "model": "fake", "prompt": "compact", "probe": False, "request_timeout_s": 30.0, "total_deadline_s": 60.0,
        "backoff_s": 0.01, "startup_deadline_s": 30.0, "health_interval_s": 0.1,
    }  # fmt: skip
    async with contextlib.AsyncExitStack() as stack:
        judges = [make() for _ in range(count)]
        for judge in judges:
            judge.features |= {"batch"}
            judge.answers = dict(ANSWERS)
        urls = [(await stack.enter_async_context(judge.running())).url for judge in judges]
        verifier = LLMVerifier(parse_config(defaults | {"endpoints": urls} | changes), random.Random(0))
        await verifier.start()
        stack.push_async_callback(verifier.aclose)
        for judge in judges:
            judge.arm()
            judge.batches.clear()
        yield verifier, judges


async def ask_all(verifier: LLMVerifier, pairs: list[Pair]) -> list[Judgement]:
    return list(await within(60, asyncio.gather(*map(verifier.verify, pairs))))


def labels(judgements: list[Judgement]) -> list[str]:
    return [judgement.category.label for judgement in judgements if isinstance(judgement, Verdict)]


RIGHT = [ANSWERS.get(pair.prediction, "wrong") for pair in PAIRS]


async def reset(_: Any, request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def test_they_get_the_verdicts_that_each_gets_alone(fake_judge: MakeJudge) -> None:
    async with judged_by(fake_judge) as (verifier, [judge]):
        together = await ask_all(verifier, PAIRS)
        assert judge.batches == [8] * 5
        stats = verifier.stats()
        assert (stats["attempts"], stats["prompt_tokens"], stats["completion_tokens"]) == (40, 2000, 40)
        assert verifier.endpoint_stats()[0].in_flight == 0
    async with judged_by(fake_judge, chats_per_request=1) as (verifier, [judge]):
        assert await ask_all(verifier, PAIRS) == together
        assert (judge.batches, judge.chats) == ([], 40)
    assert labels(together) == RIGHT


@pytest.mark.parametrize(
    "changes", [{"decoding": "choice"}, {"request_fields": {"seed": 1}}, {"chats_per_request": 1}, {"kind": "openai"}]
)
async def test_only_where_it_is_known_to_be_the_same(fake_judge: MakeJudge, changes: dict[str, Any]) -> None:
    async with judged_by(fake_judge, **changes) as (verifier, [judge]):
        assert labels(await ask_all(verifier, PAIRS)) == RIGHT
        assert judge.batches == []


@pytest.mark.parametrize("refusal", [web.HTTPBadRequest, web.HTTPInternalServerError])
async def test_one_that_spoils_a_request_costs_only_itself(fake_judge: MakeJudge, refusal: type[Exception]) -> None:
    async with judged_by(fake_judge, retries=0) as (verifier, [judge]):
        completion = judge.completion

        def refuse(body: Any) -> Any:
            if '"cat 5"' in body["messages"][-1]["content"]:
                raise refusal
            return completion(body)

        judge.completion = refuse
        judgements = await ask_all(verifier, PAIRS)
        [spoilt] = [one for one in judgements if isinstance(one, Unscorable)]
        assert (judgements.index(spoilt), spoilt.reason) == (5, Reason.HTTP_ERROR)
        assert labels(judgements) == RIGHT[:5] + RIGHT[6:]
        assert judge.batches == [8] * 5


@pytest.mark.parametrize("reply", ["<html>", "[]", '{"choices": []}', '{"choices": [{"index": 0}, {"index": 0}]}'])
async def test_a_reply_that_makes_no_sense_is_asked_for_one_by_one(fake_judge: MakeJudge, reply: str) -> None:
    async def garble(_: Any, __: web.Request) -> web.StreamResponse:
        return web.Response(text=reply)

    async with judged_by(fake_judge, retries=0) as (verifier, [judge]):
        judge.arm(lambda number: garble if number == 0 else None)
        assert labels(await ask_all(verifier, PAIRS)) == RIGHT
        assert judge.batches == [8] * 5
        assert judge.chats == 48


async def test_a_server_that_knows_the_route_no_more_is_asked_as_usual(fake_judge: MakeJudge) -> None:
    async with judged_by(fake_judge) as (verifier, [judge]):
        judge.features -= {"batch"}
        assert labels(await ask_all(verifier, PAIRS)) == RIGHT
        judge.features |= {"batch"}
        assert labels(await ask_all(verifier, [Pair("lion", f"dog {index}") for index in range(9)])) == ["wrong"] * 9
        assert judge.batches == []


@pytest.mark.parametrize("count", [1, 2])
async def test_a_connection_that_breaks_loses_no_verdict(fake_judge: MakeJudge, count: int) -> None:
    """What failed in company tries again alone: a chat that takes its server along does so once for the others."""
    async with judged_by(fake_judge, count, retries=2) as (verifier, judges):
        judges[0].arm(lambda number: reset if number < 16 else None)
        assert labels(await ask_all(verifier, PAIRS)) == RIGHT
        assert verifier.stats()["retries"] >= 8
        assert verifier.stats()["unscorable"] == 0


async def test_a_request_that_hangs_is_asked_again_chat_by_chat(fake_judge: MakeJudge) -> None:
    async def hang(_: Any, __: web.Request) -> web.StreamResponse:
        await asyncio.sleep(600)
        raise AssertionError

    async with judged_by(fake_judge, request_timeout_s=2.0) as (verifier, [judge]):
        assert labels(await ask_all(verifier, PAIRS)) == RIGHT
        judge.arm(lambda number: hang if number == 0 else None)
        assert labels(await ask_all(verifier, [Pair("lion", f"dog {index}") for index in range(8)])) == ["wrong"] * 8
        assert verifier.stats()["retries"] >= 8
        assert [size for size in judge.batches if size > 1][5:] == [8]
        assert verifier.endpoint_stats()[0].in_flight == 0


async def test_a_request_is_broken_off_when_all_its_chats_were_given_up_and_not_before(fake_judge: MakeJudge) -> None:
    async with judged_by(fake_judge) as (verifier, [judge]):
        judge.gate.clear()
        tasks = [asyncio.create_task(verifier.verify(pair)) for pair in PAIRS[:16]]
        while len(judge.batches) < 2:
            await asyncio.sleep(0.005)
        for leaving in (*tasks[:3], *tasks[8:]):  # three of the first request, all of the second
            leaving.cancel()
        await asyncio.wait({*tasks[:3], *tasks[8:]})
        while verifier.endpoint_stats()[0].in_flight > 5:
            await asyncio.sleep(0.005)
        chat_batcher = verifier.endpoints[0].chat_batcher
        assert chat_batcher is not None
        while len(chat_batcher._batcher._tasks) > 1:
            await asyncio.sleep(0.005)
        judge.gate.set()
        assert labels(await within(30, asyncio.gather(*tasks[3:8]))) == RIGHT[3:8]
        assert (judge.batches, verifier.stats()["dropped"]) == ([8, 8], 11)


async def test_closing_leaves_nobody_waiting(fake_judge: MakeJudge) -> None:
    async with judged_by(fake_judge) as (verifier, [judge]):
        judge.delay_s = 600
        waiting = asyncio.create_task(ask_all(verifier, PAIRS))
        while not judge.batches:
            await asyncio.sleep(0.005)
        await within(30, verifier.aclose())
        judgements = await within(30, waiting)
        assert {one.reason for one in judgements if isinstance(one, Unscorable)} == {Reason.CANCELLED}
        assert len(judgements) == len(PAIRS)


@given(st.permutations(range(6)))
def test_parts_come_back_in_order_whatever_the_order_of_the_choices(order: list[int]) -> None:
    usage = {"prompt_tokens": 5}
    parts = split({"choices": [{"index": index} for index in order], "usage": usage}, 6)
    assert parts is not None
    assert [part["choices"][0]["index"] for part in parts] == list(range(6))
    assert [part.get("usage") for part in parts] == [usage, *[None] * 5]


@given(st.lists(st.integers(-1, 3) | st.none() | st.text(max_size=1), max_size=5).filter(lambda one: one != [0, 1, 2]))
def test_any_other_set_of_choices_is_refused(indices: list[Any]) -> None:
    parts = split({"choices": [{"index": index} for index in indices]}, 3)
    numbers = [index for index in indices if isinstance(index, int)]
    assert (parts is not None) == (sorted(numbers) == [0, 1, 2] == sorted(set(numbers)) and len(indices) == 3)


def test_merged_bodies_keep_each_conversation() -> None:
    bodies = [{"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": text}]} for text in "ab"]
    conversations = [body["messages"] for body in bodies]
    assert merge(bodies) == {"model": "m", "max_tokens": 1, "messages": conversations, "return_token_ids": True}
