"""Endpoints that go away and return, requests that hang, and a queue that is full: no verdict is lost for it."""

import asyncio
import contextlib
import json
import random
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web

from speciarl.utils.deadline import within
from speciarl.verdict import Judgement, Pair, Reason, Source, Unscorable, Verdict
from speciarl.verifier_server.client.router import State
from speciarl.verifier_server.config import parse_config
from speciarl.verifier_server.llm_verifier import LLMVerifier

pytestmark = pytest.mark.anyio

MakeJudge = Callable[[], Any]
PAIRS = [Pair("lion", f"cat {index}") for index in range(40)]


@contextlib.asynccontextmanager
async def judged_by(*judges: Any, **changes: Any) -> AsyncIterator[LLMVerifier]:
    """The judges running, and a verifier that uses them."""
    defaults = {
        "model": "fake", "prompt": "compact", "probe": False, "request_timeout_s": 60.0, "total_deadline_s": 120.0,
        "backoff_s": 0.01, "startup_deadline_s": 30.0, "health_interval_s": 0.1,
    }  # fmt: skip
    async with contextlib.AsyncExitStack() as stack:
        urls = [(await stack.enter_async_context(judge.running())).url for judge in judges]
        verifier = LLMVerifier(parse_config(defaults | {"endpoints": urls} | changes), random.Random(0))
        await verifier.start()
        stack.push_async_callback(verifier.aclose)
        yield verifier


async def ask_all(verifier: LLMVerifier, pairs: list[Pair]) -> list[Judgement]:
    return list(await asyncio.gather(*map(verifier.verify, pairs)))


def scored(judgements: list[Judgement]) -> int:
    return sum(isinstance(judgement, Verdict) for judgement in judgements)


async def reset(_: Any, request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def hang(_: Any, __: web.Request) -> web.StreamResponse:
    await asyncio.sleep(600)
    raise AssertionError


async def until(condition: Callable[[], bool]) -> None:
    expires = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < expires
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("count", [1, 2])
async def test_all_judges_gone_for_a_while_lose_no_verdict(fake_judge: MakeJudge, count: int) -> None:
    judges = [fake_judge() for _ in range(count)]
    async with judged_by(*judges, retries=1, max_concurrency=8) as verifier:
        for judge in judges:
            judge.arm(lambda _: reset)
            judge.ill = True
        # Retries are spent on the first endpoint until it is ejected; nothing after that may cost any.
        victims = asyncio.create_task(ask_all(verifier, [Pair("lion", f"victim {index}") for index in range(10)]))
        await until(lambda: {one.state for one in verifier.endpoint_stats()} == {State.EJECTED})
        waiting = asyncio.create_task(ask_all(verifier, PAIRS))
        await asyncio.sleep(0.5)
        assert not waiting.done()
        sent = sum(judge.chats for judge in judges)
        await asyncio.sleep(0.2)
        assert sum(judge.chats for judge in judges) == sent  # waiting costs no requests
        for judge in judges:
            judge.arm(lambda _: None)
            judge.ill = False
        assert scored(await within(30, waiting)) == len(PAIRS)
        assert len(await within(30, victims)) == 10
        stats = verifier.stats()
        assert stats["ejections"] >= count
        assert stats["returns"] >= 1
        await until(lambda: all(one.state is not State.EJECTED for one in verifier.endpoint_stats()))


async def test_a_server_that_restarts_loses_no_verdict(fake_judge: MakeJudge) -> None:
    """Refused connections cost no retries."""
    judge = fake_judge()
    async with judged_by(judge, retries=0, max_concurrency=8, cache_size=0) as verifier:
        endpoint = verifier.endpoints[0].client
        api, root = endpoint.api, endpoint.root
        endpoint.api = endpoint.root = "http://127.0.0.1:9"  # nothing listens there
        waiting = asyncio.create_task(ask_all(verifier, PAIRS))
        await until(lambda: verifier.endpoint_stats()[0].state is State.EJECTED)
        await asyncio.sleep(0.2)
        endpoint.api, endpoint.root = api, root
        assert scored(await within(30, waiting)) == len(PAIRS)


async def test_a_fault_of_requests_only_is_found_by_trials_and_stays_bounded(fake_judge: MakeJudge) -> None:
    """Its health check lies: every trial fails, and all the same each pair hears within its deadline."""
    judge = fake_judge()
    async with judged_by(judge, retries=1, total_deadline_s=1.0) as verifier:
        judge.arm(lambda _: reset)
        judgements = await within(60, ask_all(verifier, PAIRS))
        # A deadline that passes in the instant between two trials is nobody's fault.
        assert {j.reason for j in judgements if isinstance(j, Unscorable)} <= {Reason.CONNECTION, Reason.TIMEOUT}
        assert verifier.stats()["ejections"] >= 1
        assert scored(judgements) == 0
        judge.arm(lambda _: None)
        verifier.config = verifier.config.model_copy(update={"total_deadline_s": 120.0})
        assert scored(await ask_all(verifier, PAIRS)) == len(PAIRS)


async def test_an_endpoint_with_a_failing_check_gets_nothing(fake_judge: MakeJudge) -> None:
    bad, good = fake_judge(), fake_judge()
    async with judged_by(bad, good) as verifier:
        bad.arm(lambda number: reset if number == 0 else None)
        bad.ill = True
        assert scored(await ask_all(verifier, PAIRS[:2])) == 2
        await until(lambda: verifier.endpoint_stats()[0].state is State.EJECTED)
        assert "HTTP 503" in verifier.endpoint_stats()[0].last_failure
        before = bad.chats
        assert scored(await ask_all(verifier, PAIRS[2:])) == len(PAIRS) - 2
        assert bad.chats == before
        bad.ill = False
        await until(lambda: verifier.endpoint_stats()[0].state is State.TRIAL)
        assert isinstance(await verifier.verify(Pair("lion", "puma")), Verdict)
        assert verifier.endpoint_stats()[0].state is State.HEALTHY


@pytest.mark.parametrize("kind", ["vllm", "openai"])
async def test_an_endpoint_that_comes_back_with_another_model_stays_ejected(
    fake_judge: MakeJudge, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    judge = fake_judge()
    async with judged_by(judge, kind=kind, total_deadline_s=0.5) as verifier:
        judge.arm(lambda _: reset)
        judge.ill = judge.warming_up = True
        async with asyncio.timeout(60):
            # On a busy machine the deadline may pass before the first failure has come back.
            while verifier.endpoint_stats()[0].state is not State.EJECTED:
                assert scored(await ask_all(verifier, PAIRS[:2])) == 0
        judge.arm(lambda _: None)
        judge.models = ["another"]
        judge.ill = judge.warming_up = False
        await until(lambda: "does not serve 'fake'; it serves: another" in verifier.endpoint_stats()[0].last_failure)
        await asyncio.sleep(0.3)  # several checks
        assert scored(await ask_all(verifier, PAIRS[:2])) == 0
        assert (verifier.endpoint_stats()[0].state, judge.chats) == (State.EJECTED, 0)
        told = [message for message in caplog.messages if "does not serve 'fake'" in message]
        assert told == [f"judge endpoint stays ejected: {verifier.endpoint_stats()[0].last_failure}"]
        judge.models = ["models/fake"]
        await until(lambda: verifier.endpoint_stats()[0].state is State.TRIAL)
        verifier.config = verifier.config.model_copy(update={"total_deadline_s": 120.0})
        assert scored(await ask_all(verifier, PAIRS[:2])) == 2


@pytest.mark.parametrize("kind", ["vllm", "openai"])
async def test_a_server_without_a_list_of_models_may_return(fake_judge: MakeJudge, kind: str) -> None:
    judge = fake_judge()
    async with judged_by(judge, kind=kind, total_deadline_s=5.0) as verifier:
        judge.features = frozenset(judge.features - {"models"})
        judge.arm(lambda number: reset if number < 6 else None)
        await ask_all(verifier, PAIRS)
        await until(lambda: verifier.endpoint_stats()[0].state in (State.TRIAL, State.HEALTHY))
        assert scored(await ask_all(verifier, PAIRS)) == len(PAIRS)


@pytest.mark.parametrize("count", [1, 2])
async def test_one_hung_request_in_twenty_costs_little(fake_judge: MakeJudge, count: int) -> None:
    judges = [fake_judge() for _ in range(count)]
    hung: set[str] = set()

    async def hang_at_first(judge: Any, request: web.Request) -> web.StreamResponse:
        """Ten pairs hang when first asked."""
        body = await request.json()
        pair = json.loads(body["messages"][-1]["content"])["prediction"]
        if int(pair.split()[1]) % 20 == 7 and pair not in hung:
            hung.add(pair)
            return await hang(judge, request)
        return web.json_response(judge.completion(body))

    async with judged_by(*judges, max_concurrency=8, request_timeout_s=2.0) as verifier:
        assert scored(await ask_all(verifier, [Pair("dog", f"cat {i}") for i in range(60)])) == 60
        for judge in judges:
            judge.arm(lambda _: hang_at_first)
        pairs = [Pair("lion", f"tiger {index}") for index in range(200)]
        # Ten time-outs of two seconds, several at a time.
        assert scored(await within(60, ask_all(verifier, pairs))) == len(pairs)
        stats = verifier.stats()
        assert len(hung) == 10
        assert stats["retries"] >= 10
        assert stats["attempts"] == 60 + 200 + stats["retries"]
        assert [one.in_flight for one in verifier.endpoint_stats()] == [0] * count


async def test_one_pair_too_many_is_turned_away_at_once(fake_judge: MakeJudge) -> None:
    judge = fake_judge()
    async with judged_by(judge, max_concurrency=2, max_waiting=3) as verifier:
        judge.gate.clear()
        tasks = [asyncio.create_task(verifier.verify(pair)) for pair in PAIRS[:6]]
        done, _ = await asyncio.wait(tasks, timeout=30, return_when=asyncio.FIRST_COMPLETED)
        assert done == {tasks[5]}
        turned_away = tasks[5].result()
        assert isinstance(turned_away, Unscorable)
        assert turned_away.reason is Reason.OVERLOADED
        assert "max_waiting=3" in turned_away.detail
        assert verifier.stats()["waiting"] == 3
        judge.gate.set()
        assert scored(await asyncio.gather(*tasks[:5])) == 5
        assert verifier.stats()["rejected"] == 1
        assert isinstance(await verifier.verify(PAIRS[5]), Verdict)


async def test_pairs_are_judged_in_the_order_of_their_arrival(fake_judge: MakeJudge) -> None:
    judge = fake_judge()
    async with judged_by(judge, max_concurrency=1) as verifier:
        judge.arm(lambda number: reset if number == 3 else None)
        await ask_all(verifier, PAIRS)
        asked = [body["messages"][-1]["content"].split('"')[-2] for body in judge.requests[-len(PAIRS) - 1 :]]
        repeated = asked.pop(max(index for index, one in enumerate(asked) if one == PAIRS[3].prediction))
        assert repeated == PAIRS[3].prediction
        assert asked == [pair.prediction for pair in PAIRS]


async def test_a_pair_nobody_waits_for_leaves_the_queue_or_the_judge(fake_judge: MakeJudge) -> None:
    judge = fake_judge()
    async with judged_by(judge, max_concurrency=1) as verifier:
        judge.arm()
        judge.gate.clear()
        first, second, third = (asyncio.create_task(verifier.verify(pair)) for pair in PAIRS[:3])
        also_second = asyncio.create_task(verifier.verify(PAIRS[1]))
        await until(lambda: judge.chats == 1)
        for task in (first, second, third):
            task.cancel()
        # The first leaves its place at the judge to the second, which has one caller left; the third is dropped.
        again = asyncio.create_task(verifier.verify(PAIRS[2]))
        await asyncio.wait({first, second, third})
        await until(lambda: judge.chats == 2)
        assert verifier.endpoint_stats()[0].in_flight == 1
        judge.gate.set()
        assert isinstance(await within(30, also_second), Verdict)
        for verdict in (await within(30, again), await within(30, verifier.verify(PAIRS[0]))):
            assert isinstance(verdict, Verdict)
            assert verdict.source is Source.LIVE
        stats = verifier.stats()
        assert (stats["dropped"], stats["abandoned"], stats["in_flight"], judge.chats) == (2, 3, 0, 4)


async def test_a_request_nobody_waits_for_is_broken_off_and_not_tried_again(fake_judge: MakeJudge) -> None:
    judge = fake_judge()

    async def fail_late(_: Any, __: web.Request) -> web.StreamResponse:
        await judge.gate.wait()
        return web.Response(status=500)

    async with judged_by(judge) as verifier:
        judge.arm(lambda _: fail_late)
        judge.gate.clear()
        lonely = asyncio.create_task(verifier.verify(PAIRS[0]))
        await until(lambda: judge.chats == 1)
        lonely.cancel()
        await asyncio.wait({lonely})
        await until(lambda: verifier.endpoint_stats()[0].in_flight == 0)
        judge.gate.set()
        await asyncio.sleep(0.1)
        (endpoint,) = verifier.endpoint_stats()
        assert (judge.chats, endpoint.failed, endpoint.state) == (1, 0, State.HEALTHY)  # nor held against the server
        assert (verifier.stats()["in_flight"], verifier.stats()["dropped"]) == (0, 1)


async def test_tokens_and_times_are_counted(fake_judge: MakeJudge) -> None:
    judge = fake_judge()
    plain = judge.completion
    usage = {"prompt_tokens": 50, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 40}}
    judge.completion = lambda body: plain(body) | {"usage": usage}
    async with judged_by(judge) as verifier:
        await ask_all(verifier, PAIRS)
        stats = verifier.stats()
        assert [stats[name] for name in ("prompt_tokens", "cached_tokens", "completion_tokens")] == [2000, 1600, 40]
        bounds, counts, total = verifier.histograms()["judge_seconds"]
        assert len(counts) == len(bounds) + 1
        assert counts[-1] == stats["attempts"] == 40
        assert total == pytest.approx(stats["judge_seconds"])
        (endpoint,) = verifier.endpoint_stats()
        assert (endpoint.attempts, endpoint.failed, endpoint.in_flight, endpoint.state) == (40, 0, 0, State.HEALTHY)
