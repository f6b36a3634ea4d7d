"""Several verifiers ("services") on one real Redis: each pair is judged once among them, whatever befalls them."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
import uvicorn

from speciarl.verdict import Judgement, Pair, Source, Unscorable, Verdict
from speciarl.verifier_server import parse_config
from speciarl.verifier_server.llm_verifier import LLMVerifier
from speciarl.verifier_server.service.app import create_app
from speciarl.verifier_server.service.config import parse_settings
from speciarl.verifier_server.store.redis_store import RedisStore

pytestmark = pytest.mark.anyio

MakeJudge = Callable[[], Any]
SHORT_LEASE_S = 3.0
PAIRS = [Pair("lion", f"cat {i}") for i in range(60)]


@contextlib.asynccontextmanager
async def service(judge: Any, redis_server: Any, lease_s: float = 60.0, **changes: Any) -> AsyncIterator[LLMVerifier]:
    store = {"kind": "redis", "url": redis_server.url, "lease_s": lease_s, "timeout_s": 2.0}
    defaults = {"model": "fake", "prompt": "compact", "probe": False, "backoff_s": 0.01, "store": store}
    verifier = LLMVerifier(parse_config(defaults | {"endpoints": [judge.url]} | changes))
    await verifier.start()
    try:
        yield verifier
    finally:
        await verifier.aclose()


@contextlib.asynccontextmanager
async def http_service(judge: Any, redis_server: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a service on a socket, ready."""
    main = {"model": "fake", "prompt": "compact", "probe": False, "endpoints": [judge.url]}
    settings = parse_settings({"judges": {"main": main}, "store": {"kind": "redis", "url": redis_server.url}})
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        server = uvicorn.Server(uvicorn.Config(create_app(settings), log_config=None, timeout_graceful_shutdown=1))
        serving = asyncio.create_task(server.serve([listener]))
        try:
            while not server.started:
                await asyncio.sleep(0.01)
            async with httpx.AsyncClient(base_url=url, timeout=60) as client:
                while (await client.get("/ready")).status_code != 200:
                    await asyncio.sleep(0.01)
                yield client
        finally:
            server.should_exit = True
            await serving


def sources(judgements: list[Judgement]) -> list[Source]:
    assert all(isinstance(judgement, Verdict) for judgement in judgements)
    return [judgement.source for judgement in judgements if isinstance(judgement, Verdict)]


async def test_each_pair_is_judged_once_among_all(fake_judge: MakeJudge, redis_server: Any) -> None:
    async with fake_judge().running() as judge, contextlib.AsyncExitStack() as stack:
        services = [await stack.enter_async_context(service(judge, redis_server)) for _ in range(3)]
        judge.arm()
        judge.delay_s = 0.1
        everybody = [one.verify(pair) for pair in PAIRS for one in services]
        judgements = list(await asyncio.gather(*everybody))
        assert judge.chats == len(PAIRS)
        assert sources(judgements).count(Source.LIVE) == len(PAIRS)
        assert sources(judgements).count(Source.STORE) == 2 * len(PAIRS)
        by_pair = [{(j.category, j.margin) for j in judgements[i : i + 3]} for i in range(0, len(judgements), 3)]
        assert {len(verdicts) for verdicts in by_pair} == {1}
        stats = [one.stats() for one in services]
        assert sum(s["store_hits"] for s in stats) == 2 * len(PAIRS)
        assert sum(s["lease_seconds"] for s in stats) > 1
        assert not redis_server.client().keys("speciarl:1:lease:*")


async def test_over_http_the_second_service_answers_from_the_store(fake_judge: MakeJudge, redis_server: Any) -> None:
    async def ask(client: httpx.AsyncClient) -> list[dict[str, Any]]:
        pairs = [{"ground_truth": pair.ground_truth, "prediction": pair.prediction} for pair in PAIRS]
        results: list[dict[str, Any]] = (await client.post("/v1/judge", json={"pairs": pairs})).json()["results"]
        return results

    async with (
        fake_judge().running() as judge,
        http_service(judge, redis_server) as one,
        http_service(judge, redis_server) as other,
    ):
        judge.arm()
        first, second = await ask(one), await ask(other)
        assert {result["source"] for result in first} == {"live"}
        assert second == [result | {"source": "store"} for result in first]
        assert {result["source"] for result in await ask(other)} == {"memory"}
        assert judge.chats == len(PAIRS)


async def reached(judge: Any) -> None:
    """Wait until a pair is at the judge, so that whoever asks holds the lease."""
    expires = time.monotonic() + 30
    while not judge.chats:
        assert time.monotonic() < expires
        await asyncio.sleep(0.01)


async def test_a_slow_judge_is_still_asked_once(fake_judge: MakeJudge, redis_server: Any) -> None:
    async with fake_judge().running() as judge, contextlib.AsyncExitStack() as stack:
        services = [await stack.enter_async_context(service(judge, redis_server, SHORT_LEASE_S)) for _ in range(2)]
        judge.arm()
        judge.delay_s = SHORT_LEASE_S * 2
        judgements = list(await asyncio.gather(*(one.verify(PAIRS[0]) for one in services)))
        assert sorted(sources(judgements)) == [Source.LIVE, Source.STORE]
        assert judge.chats == 1


@pytest.mark.parametrize("end", ["dies", "closes", "fails"])
async def test_another_takes_over_from_a_holder_that(fake_judge: MakeJudge, redis_server: Any, end: str) -> None:
    async def broken(_: Any, __: Any) -> Any:
        await asyncio.sleep(0.2)
        raise ConnectionResetError

    async with fake_judge().running() as slow, fake_judge().running() as judge, contextlib.AsyncExitStack() as stack:
        lease_s = SHORT_LEASE_S if end == "dies" else 60.0
        holder = await stack.enter_async_context(service(slow, redis_server, lease_s, retries=0))
        other = await stack.enter_async_context(service(judge, redis_server))
        judge.arm()
        slow.arm((lambda _: broken) if end == "fails" else None)
        slow.delay_s = 600.0
        held = asyncio.create_task(holder.verify(PAIRS[0]))
        await reached(slow)
        begun = time.monotonic()
        waiting = asyncio.create_task(other.verify(PAIRS[0]))
        await asyncio.sleep(0.05)
        assert judge.chats == 0
        if end == "dies":  # what remains of a killed process: nobody prolongs or releases its lease
            assert isinstance(holder._store, RedisStore)
            assert holder._store._renewal is not None
            holder._store._renewal.cancel()
            holder._store._held.clear()
        elif end == "closes":
            await holder.aclose()
        assert sources([await waiting]) == [Source.LIVE]
        assert time.monotonic() - begun < 30
        assert judge.chats == 1
        await holder.aclose()
        assert isinstance(await held, Unscorable)


async def test_a_wait_for_others_counts_under_the_deadline(fake_judge: MakeJudge, redis_server: Any) -> None:
    async with fake_judge().running() as judge, contextlib.AsyncExitStack() as stack:
        holder = await stack.enter_async_context(service(judge, redis_server))
        waiter = await stack.enter_async_context(service(judge, redis_server, total_deadline_s=1.0))
        judge.arm()
        judge.delay_s = 600.0
        held = asyncio.create_task(holder.verify(PAIRS[0]))
        await reached(judge)
        begun = time.monotonic()
        assert isinstance(await waiter.verify(PAIRS[0]), Unscorable)
        assert 0.9 < time.monotonic() - begun < 30
        held.cancel()


async def test_redis_dies_in_the_middle_and_comes_back(fake_judge: MakeJudge, redis_server: Any) -> None:
    async with fake_judge().running() as judge, service(judge, redis_server) as verifier:
        judge.arm()
        judge.delay_s = 0.3
        before = list(await asyncio.gather(*map(verifier.verify, PAIRS[:20])))
        running = [asyncio.create_task(verifier.verify(pair)) for pair in PAIRS[20:40]]
        await asyncio.sleep(0.15)
        redis_server.kill()
        begun = time.monotonic()
        during = [*await asyncio.gather(*running), *await asyncio.gather(*map(verifier.verify, PAIRS[40:]))]
        assert set(sources(before + during)) == {Source.LIVE}
        assert time.monotonic() - begun < 30
        assert verifier.stats()["store_degraded"] == 1
        assert verifier.stats()["store_errors"] >= 1
        redis_server.start()
        expires = time.monotonic() + 40
        while verifier.stats()["store_degraded"]:
            assert time.monotonic() < expires
            await asyncio.sleep(0.1)
        assert verifier.stats()["store_lost"] == 0
        async with service(judge, redis_server) as later:
            judge.arm()
            found = list(await asyncio.gather(*map(later.verify, PAIRS[20:])))
            assert set(sources(found)) == {Source.STORE}
            assert judge.chats == 0
