"""Several verifiers ("services") on one real Redis: all give the verdict that was written first."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
import uvicorn

from speciarl.verdict import Judgement, Pair, Source, Verdict
from speciarl.verifier_server import parse_config
from speciarl.verifier_server.llm_verifier import LLMVerifier
from speciarl.verifier_server.service.app import create_app
from speciarl.verifier_server.service.config import parse_settings

pytestmark = pytest.mark.anyio

MakeJudge = Callable[[], Any]
PAIRS = [Pair("lion", f"cat {i}") for i in range(60)]


@contextlib.asynccontextmanager
async def service(judge: Any, redis_server: Any, **changes: Any) -> AsyncIterator[LLMVerifier]:
    store = {"kind": "redis", "url": redis_server.url, "timeout_s": 2.0}
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


async def test_all_use_the_verdict_that_was_written_first(fake_judge: MakeJudge, redis_server: Any) -> None:
    """Judges that disagree about every pair, asked at the same time."""
    async with (
        fake_judge().running() as mild,
        fake_judge().running() as harsh,
        service(mild, redis_server) as one,
        service(harsh, redis_server) as other,
    ):
        mild.answers = {pair.prediction: "generic" for pair in PAIRS}  # the other calls them wrong
        mild.arm()
        harsh.arm()
        both = [verifier.verify(pair) for pair in PAIRS for verifier in (one, other)]
        judgements = list(await asyncio.gather(*both))
        assert mild.chats + harsh.chats > len(PAIRS)
        assert set(sources(judgements)) <= {Source.LIVE, Source.STORE}
        told = [judgement.category for judgement in judgements if isinstance(judgement, Verdict)]
        assert told[0::2] == told[1::2]
        async with service(mild, redis_server) as later:
            found = list(await asyncio.gather(*map(later.verify, PAIRS)))
            assert [judgement.category for judgement in found if isinstance(judgement, Verdict)] == told[0::2]
            assert set(sources(found)) == {Source.STORE}


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
