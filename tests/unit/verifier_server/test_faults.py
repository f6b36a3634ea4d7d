"""A judge that misbehaves: every failure is bounded in time, and none becomes a category."""

import asyncio
import contextlib
import random
import re
import socket
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web

from speciarl.category import Category
from speciarl.utils.deadline import within
from speciarl.verdict import Pair, Reason, Source, Unscorable, Verdict
from speciarl.verifier_server.client.router import State
from speciarl.verifier_server.config import VerifierConfig, parse_config
from speciarl.verifier_server.llm_verifier import LLMVerifier

pytestmark = pytest.mark.anyio

MakeJudge = Callable[[], Any]
Fault = Callable[[Any, web.Request], Any]
PAIR = Pair("Lion!", "panthera leo")
BOUND_S = 30.0
"""Far beyond the deadlines of the tests, and far below what a fault without a deadline would take."""


def config(*urls: str, **changes: Any) -> VerifierConfig:
    defaults = {
        "model": "fake",
        "prompt": "compact",
        "probe": False,
        "request_timeout_s": 60.0,
        "total_deadline_s": 120.0,
        "backoff_s": 0.01,
        "startup_deadline_s": 30.0,
    }
    return parse_config(defaults | {"endpoints": urls} | changes)


@contextlib.asynccontextmanager
async def started(*urls: str, **changes: Any) -> AsyncIterator[LLMVerifier]:
    verifier = LLMVerifier(config(*urls, **changes), random.Random(0))
    await verifier.start()
    try:
        yield verifier
    finally:
        await verifier.aclose()


async def until(condition: Callable[[], bool]) -> None:
    expires = time.monotonic() + BOUND_S
    while not condition():
        assert time.monotonic() < expires
        await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def two_judges(fake_judge: MakeJudge, **changes: Any) -> AsyncIterator[tuple[Any, Any, LLMVerifier]]:
    async with contextlib.AsyncExitStack() as stack:
        first, second = [await stack.enter_async_context(fake_judge().running()) for _ in range(2)]
        yield first, second, await stack.enter_async_context(started(first.url, second.url, **changes))


async def hang(_: Any, __: web.Request) -> web.StreamResponse:
    await asyncio.sleep(600)
    raise AssertionError


async def reset(_: Any, request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def truncated(_: Any, request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"choices": [')
    assert request.transport is not None
    request.transport.close()
    return response


def replying(text: str = "", status: int = 200, **headers: str) -> Fault:
    async def reply(_: Any, __: web.Request) -> web.StreamResponse:
        return web.Response(text=text, status=status, headers=headers)

    return reply


def saying(content: Any) -> Fault:
    async def reply(_: Any, __: web.Request) -> web.StreamResponse:
        return web.json_response({"choices": [{"message": {"content": content}}]})

    return reply


FAULTS: list[tuple[Fault, Reason]] = [
    (hang, Reason.TIMEOUT),
    (reset, Reason.CONNECTION),
    (truncated, Reason.CONNECTION),
    (replying("boom", 500), Reason.HTTP_ERROR),
    (replying("boom", 502), Reason.HTTP_ERROR),
    (replying("busy", 429), Reason.OVERLOADED),
    (replying("busy", 503), Reason.OVERLOADED),
    (replying("<html>", 200), Reason.MALFORMED),
    (replying("", 200), Reason.MALFORMED),
    (replying("[]", 200), Reason.MALFORMED),
    (replying('{"choices": []}', 200), Reason.MALFORMED),
    (replying('{"choices": [{"logprobs": {"content": [{"token": "w"}]}}]}', 200), Reason.MALFORMED),
    (replying('{"error": {"message": "no such model"}}', 404), Reason.HTTP_ERROR),
    (replying("too long", 400), Reason.HTTP_ERROR),
    (replying("who are you", 401), Reason.HTTP_ERROR),
    (replying("elsewhere", 302, Location="http://example.invalid/"), Reason.HTTP_ERROR),
]
FINAL = {302, 400, 401, 404}


@pytest.mark.parametrize("decoding", ["first_token", "choice"])
@pytest.mark.parametrize(("fault", "reason"), FAULTS)
async def test_a_lasting_fault_is_unscorable_and_bounded(
    fake_judge: MakeJudge, fault: Fault, reason: Reason, decoding: str
) -> None:
    patience = {"retries": 2, "total_deadline_s": 1.2, "request_timeout_s": 0.3 if fault is hang else 60.0}
    async with fake_judge().running() as judge, started(judge.url, decoding=decoding, **patience) as verifier:
        judge.arm(lambda _: fault)
        judgement = await within(BOUND_S, verifier.verify(PAIR))
        assert isinstance(judgement, Unscorable)
        # An overload is waited out until the deadline, which may come while a request is under way.
        late = reason is Reason.OVERLOADED and judgement.reason is Reason.TIMEOUT
        assert judgement.reason is reason or late
        assert "\n" not in judgement.detail
        assert judge.url in judgement.detail
        assert verifier.stats()[f"unscorable/{judgement.reason}"] == 1
        # The fault goes, and nothing stays poisoned.
        judge.arm(lambda _: None)
        verifier.config = verifier.config.model_copy(update={"total_deadline_s": 120.0})
        verifier.endpoints[0].client._timeout_s = 60.0
        assert isinstance(await verifier.verify(PAIR), Verdict)


@pytest.mark.parametrize(("fault", "reason"), FAULTS)
async def test_one_passing_fault_costs_nothing_but_a_retry(fake_judge: MakeJudge, fault: Fault, reason: Reason) -> None:
    patience = {"request_timeout_s": 1.0 if fault is hang else 60.0}
    async with fake_judge().running() as judge, started(judge.url, **patience) as verifier:
        judge.answers = {"panthera leo": "specific"}
        judge.arm(lambda number: fault if number == 0 else None)
        judgement = await verifier.verify(PAIR)
        if judge.chats == 1:  # a final refusal is not tried again
            assert isinstance(judgement, Unscorable)
            assert judgement.reason is Reason.HTTP_ERROR
        else:
            assert isinstance(judgement, Verdict)
            assert judgement.category is Category.SPECIFIC
            assert verifier.stats()["retries"] == 1


@pytest.mark.parametrize(
    "content", ["robin", "", "wrong or specific", "Category: wrong", None, [], [{"type": "image"}], [{"text": 1}]]
)
async def test_a_word_that_is_no_label_is_never_a_category(fake_judge: MakeJudge, content: Any) -> None:
    async with fake_judge().running() as judge, started(judge.url, decoding="choice", retries=1) as verifier:
        judge.arm(lambda _: saying(content))
        judgement = await verifier.verify(PAIR)
        assert isinstance(judgement, Unscorable)
        assert judgement.reason is (Reason.OFF_LABEL if isinstance(content, str) else Reason.MALFORMED)


async def test_a_dead_endpoint_beside_a_living_one_loses_no_verdict(fake_judge: MakeJudge) -> None:
    async with fake_judge().running() as living:
        async with fake_judge().running() as dying:
            verifier = LLMVerifier(config(dying.url, living.url, max_concurrency=4))
            await verifier.start()
        judgements = await asyncio.gather(*(verifier.verify(Pair("lion", f"cat {i}")) for i in range(60)))
        assert all(isinstance(judgement, Verdict) for judgement in judgements)
        # It fails at once and so is never busy; without a rest it would draw every request.
        assert verifier.stats()["retries"] < 30
        await verifier.aclose()


async def test_a_retry_goes_to_another_endpoint(fake_judge: MakeJudge) -> None:
    async with two_judges(fake_judge, retries=1) as (first, second, verifier):
        for judge in (first, second):
            judge.arm(lambda number: replying("boom", 500) if number == 0 else None)
        await verifier.verify(PAIR)
        assert (first.chats, second.chats) == (1, 1)


async def test_retry_after_is_honoured(fake_judge: MakeJudge) -> None:
    async with fake_judge().running() as judge, started(judge.url) as verifier:
        busy = replying("busy", 429, **{"Retry-After": "1"})
        judge.arm(lambda number: busy if number == 0 else None)
        begun = time.monotonic()
        assert isinstance(await verifier.verify(PAIR), Verdict)
        assert 1.0 <= time.monotonic() - begun < BOUND_S


async def test_a_server_that_asked_for_silence_is_tried_with_one_request_first(fake_judge: MakeJudge) -> None:
    limits = {"max_concurrency": 8, "chats_per_request": 1, "retries": 0}
    async with fake_judge().running() as judge, started(judge.url, **limits) as verifier:
        busy = replying("busy", 429, **{"Retry-After": "1"})
        judge.gate.clear()
        judge.arm(lambda number: busy if number < 8 else None)
        waiting = [asyncio.create_task(verifier.verify(Pair("lion", f"cat {i}"))) for i in range(20)]
        await until(lambda: judge.chats == 9)
        await asyncio.sleep(0.2)
        assert judge.chats == 9
        assert verifier.endpoint_stats()[0].state is State.TRIAL
        judge.gate.set()
        judgements = await within(BOUND_S, asyncio.gather(*waiting))
        assert all(isinstance(judgement, Verdict) for judgement in judgements)
        assert (judge.chats, verifier.endpoint_stats()[0].state) == (28, State.HEALTHY)


async def test_a_pause_beyond_the_deadline_is_not_waited_for(fake_judge: MakeJudge) -> None:
    async with fake_judge().running() as judge, started(judge.url) as verifier:
        judge.arm(lambda _: replying("busy", 429, **{"Retry-After": "3600"}))
        judgement = await within(BOUND_S, verifier.verify(PAIR))
        assert isinstance(judgement, Unscorable)
        assert judgement.reason is Reason.OVERLOADED


async def test_the_total_deadline_covers_the_local_queue(fake_judge: MakeJudge) -> None:
    async with fake_judge().running() as judge, started(judge.url, max_concurrency=1) as verifier:
        judge.arm(lambda _: hang)
        first = asyncio.create_task(verifier.verify(PAIR))
        await until(lambda: judge.chats == 1)  # it has the only place
        verifier.config = verifier.config.model_copy(update={"total_deadline_s": 0.5})
        asked = [verifier.verify(Pair("lion", f"cat {i}")) for i in range(3)]
        judgements = await within(BOUND_S, asyncio.gather(*asked))
        lost = [judgement for judgement in judgements if isinstance(judgement, Unscorable)]
        assert [judgement.reason for judgement in lost] == [Reason.TIMEOUT] * 3
        for judgement in lost:
            waited = re.search(r"0 attempts, (\d+\.\d) s in the local queue", judgement.detail)
            assert waited is not None
            assert float(waited.group(1)) >= 0.5
        first.cancel()


async def test_concurrency_is_bounded(fake_judge: MakeJudge) -> None:
    async with fake_judge().running() as judge, started(judge.url, max_concurrency=3) as verifier:
        judge.arm()
        judge.delay_s = 0.01
        await asyncio.gather(*(verifier.verify(Pair("lion", f"cat {i}")) for i in range(30)))
        assert judge.most_at_once == 3
        stats = verifier.stats()
        assert stats["live"] == stats["attempts"] == 30
        assert stats["queue_seconds"] > stats["judge_seconds"] / 2 > 0


async def test_everything_fails_at_once_and_all_callers_hear_of_it(fake_judge: MakeJudge) -> None:
    limits = {"retries": 1, "total_deadline_s": 1.0}
    async with fake_judge().running() as judge, started(judge.url, **limits) as verifier:
        judge.arm(lambda _: reset)
        judgements = await asyncio.gather(*(verifier.verify(Pair("lion", f"cat {i}")) for i in range(40)))
        assert all(isinstance(judgement, Unscorable) for judgement in judgements)
        assert verifier.stats()["unscorable"] == 40


async def test_random_faults_give_right_verdicts_or_none(fake_judge: MakeJudge) -> None:
    chance = random.Random(1)
    faults = [fault for fault, reason in FAULTS if fault is not hang]
    async with two_judges(fake_judge, retries=6) as (first, second, verifier):
        for judge in (first, second):
            judge.answers = {f"cat {i}": "generic" for i in range(0, 80, 2)}
            judge.arm(lambda _: chance.choice(faults) if chance.random() < 0.3 else None)
        judgements = await asyncio.gather(*(verifier.verify(Pair("lion", f"cat {i}")) for i in range(80)))
    scored = [(i, j.category) for i, j in enumerate(judgements) if isinstance(j, Verdict)]
    assert len(scored) > 60
    assert all(category is (Category.GENERIC if i % 2 == 0 else Category.WRONG) for i, category in scored)


async def test_no_endpoint_listens_any_more(fake_judge: MakeJudge) -> None:
    async with fake_judge().running() as judge:
        verifier = LLMVerifier(config(judge.url, retries=2, total_deadline_s=0.5))
        await verifier.start()
    judgement = await verifier.verify(PAIR)
    assert isinstance(judgement, Unscorable)
    assert judgement.reason is Reason.CONNECTION
    assert "1 of 1 endpoints are ejected" in judgement.detail
    await verifier.aclose()


async def test_closing_releases_those_who_wait(fake_judge: MakeJudge) -> None:
    async with fake_judge().running() as judge, started(judge.url) as verifier:
        judge.arm(lambda _: hang)
        waiting = asyncio.create_task(verifier.verify(PAIR))
        await until(lambda: judge.chats == 1)
        await within(BOUND_S, verifier.aclose())
        judgement = await within(BOUND_S, waiting)
        assert isinstance(judgement, Unscorable)
        assert judgement.reason is Reason.CANCELLED
        assert (await verifier.verify(PAIR)) == Unscorable(Reason.CANCELLED, "the verifier is not running")
        await verifier.aclose()


async def test_a_caller_that_goes_away_takes_nothing_from_the_others(fake_judge: MakeJudge) -> None:
    async with fake_judge().running() as judge, started(judge.url) as verifier:
        judge.arm()
        judge.gate.clear()
        waiting = [asyncio.create_task(verifier.verify(PAIR)) for _ in range(3)]
        await until(lambda: judge.chats == 1)
        waiting[0].cancel()
        judge.gate.set()
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(outcomes[0], asyncio.CancelledError)
        assert [type(outcome) for outcome in outcomes[1:]] == [Verdict, Verdict]
        assert judge.chats == 1
        assert verifier.stats()["abandoned"] == 1
        # When the last has left, the request is broken off, and the next caller has another one made.
        judge.gate.clear()
        lonely = asyncio.create_task(verifier.verify(Pair("lion", "tiger")))
        await until(lambda: judge.chats == 2)
        lonely.cancel()
        await asyncio.wait({lonely})
        assert verifier.stats()["in_flight"] == 0
        judge.gate.set()
        judgement = await verifier.verify(Pair("lion", "tiger"))
        assert isinstance(judgement, Verdict)
        assert (judgement.source, judge.chats, verifier.stats()["dropped"]) == (Source.LIVE, 3, 1)


async def test_a_port_that_accepts_and_says_nothing(fake_judge: MakeJudge) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        async with fake_judge().running() as judge, started(judge.url, retries=1, request_timeout_s=0.3) as verifier:
            assert verifier._dispatcher is not None
            endpoint = verifier._dispatcher.router.endpoints[0]
            endpoint.client.api = f"{url}/v1"
            endpoint.client.url = url
            judgement = await verifier.verify(PAIR)
            assert isinstance(judgement, Unscorable)
            assert judgement.reason is Reason.TIMEOUT
