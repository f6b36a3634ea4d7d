"""Real vLLM replicas behind a fault injector, and replicas that are killed: no verdict lost, none wrong.

First the pairs are judged without faults: the truth. Every fault is then held against it.
"""

import asyncio
import contextlib
import itertools
import os
import random
import signal
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import fault_proxy
import psutil
import pytest
from processes import words_of

from speciarl.category import Category
from speciarl.cpu import environment, stack
from speciarl.verdict import Judgement, Pair, Reason, Unscorable, Verdict
from speciarl.verifier_server import VerifierConfig, parse_config
from speciarl.verifier_server.client.router import State
from speciarl.verifier_server.config import StoreConfig
from speciarl.verifier_server.llm_verifier import LLMVerifier
from speciarl.verifier_server.pool.ray_pool import JudgePool

pytestmark = pytest.mark.anyio

STARTUP_S = 300.0
TRUTHS = ("dog face", "cat face", "lion", "eagle", "rose")
ANSWERS = ("animal mammal", "animal bird", "plant flower", "animals nature", "food drink", "none", "a wolf", "red rose")
PAIRS = [Pair(*both) for both in itertools.product(TRUTHS, ANSWERS)]
"""The pairs that are held against the truth."""


def describe() -> VerifierConfig:
    """Two replicas of the laptop judge."""
    engine: dict[str, Any] = {"enforce_eager": True, "max_num_seqs": 16}
    if not stack.active():
        engine |= {"gpu_memory_utilization": 0.1, "kv_cache_memory_bytes": 2**30}  # vLLM measures nothing then
    pool = {
        "replicas": 2, "dtype": "float32", "gpus_per_replica": 0 if stack.active() else 0.5, "cpus_per_replica": 1,
        "max_model_len": 1024, "startup_deadline_s": STARTUP_S, "restart_backoff_s": 0.5, "engine_args": engine,
    }  # fmt: skip
    return parse_config(
        {"name": "tiny", "model": LAPTOP_JUDGE, "served_model_name": "tiny", "prompt": "compact", "probe": False,
         "max_string_chars": 200, "health_interval_s": 1.0, "backoff_s": 0.1, "startup_deadline_s": 30,
         "request_timeout_s": 60, "total_deadline_s": 120, "max_concurrency": 16, "pool": pool}
    )  # fmt: skip


LAPTOP_JUDGE = str(resources.files("speciarl.laptop") / "models" / "judge")


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JudgePool]:
    """Two running replicas on a Ray of our own."""
    import ray

    gpus = 0 if stack.active() else 1
    ray.init(address="local", num_cpus=2, num_gpus=gpus, include_dashboard=False, log_to_driver=False)
    env = environment.variables() if stack.active() else {}
    try:
        with JudgePool(describe(), tmp_path_factory.mktemp("logs"), env) as running:
            yield running
    finally:
        ray.shutdown()


@pytest.fixture(scope="module")
def truth(pool: JudgePool) -> dict[Pair, Category]:
    """What the judge says of each pair when nothing is wrong."""

    async def judge() -> list[Judgement]:
        async with judged_by(pool.config.endpoints) as verifier:
            return await ask_all(verifier)

    found = {pair: j.category for pair, j in zip(PAIRS, asyncio.run(judge()), strict=True) if isinstance(j, Verdict)}
    assert len(found) == len(PAIRS)
    assert len(set(found.values())) >= 3
    return found


@contextlib.asynccontextmanager
async def judged_by(urls: tuple[str, ...], **changes: Any) -> AsyncIterator[LLMVerifier]:
    """A verifier, without memory unless told otherwise, so that every pair is asked anew."""
    plain = {"endpoints": urls, "pool": None, "cache_size": 0, "exact_shortcut": False}
    verifier = LLMVerifier(describe().model_copy(update=plain | changes), random.Random(0))
    await verifier.start()
    try:
        yield verifier
    finally:
        await verifier.aclose()


@contextlib.asynccontextmanager
async def behind_proxies(pool: JudgePool, **changes: Any) -> AsyncIterator[tuple[list[Any], LLMVerifier]]:
    """One fault injector before each replica, and a verifier that knows the injectors only."""
    async with contextlib.AsyncExitStack() as stacked:
        proxies = [fault_proxy.FaultProxy(url) for url in pool.config.endpoints]
        for proxy in proxies:
            await proxy.start()
            stacked.push_async_callback(proxy.stop)
        urls = tuple(proxy.url for proxy in proxies)
        yield proxies, await stacked.enter_async_context(judged_by(urls, **changes))


async def ask_all(verifier: LLMVerifier) -> list[Judgement]:
    return list(await asyncio.gather(*map(verifier.verify, PAIRS)))


async def expect_the_truth(verifier: LLMVerifier, truth: dict[Pair, Category], within_s: float) -> None:
    """All pairs, all right, in time."""
    begun = time.monotonic()
    judgements = await ask_all(verifier)
    assert time.monotonic() - begun < within_s
    lost = [judgement for judgement in judgements if isinstance(judgement, Unscorable)]
    assert not lost
    assert {p: j.category for p, j in zip(PAIRS, judgements, strict=True) if isinstance(j, Verdict)} == truth


async def until(condition: Callable[[], bool], within_s: float) -> None:
    expires = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < expires
        await asyncio.sleep(0.05)


def sometimes(fault: Any, share: float, seed: int) -> Any:
    """A plan by which that share of the chat requests meets the fault."""
    chance = random.Random(seed)
    return lambda _: fault if chance.random() < share else None


PARTIAL = ["reset", "server_error", "too_many", "garbage", "cut_json", "broken_off", "foreign_label", "slow"]


@pytest.mark.parametrize(("decoding", "together"), [("first_token", 8), ("first_token", 1), ("choice", 1)])
async def test_faults_in_three_requests_of_ten_lose_no_verdict(
    pool: JudgePool, truth: dict[Pair, Category], decoding: str, together: int
) -> None:
    async with behind_proxies(pool, decoding=decoding, chats_per_request=together) as (proxies, verifier):
        for name in PARTIAL:
            for seed, proxy in enumerate(proxies):
                proxy.inject(sometimes(getattr(fault_proxy, name), 0.3, seed))
            await expect_the_truth(verifier, truth, within_s=120)
            for proxy in proxies:
                proxy.inject()
            await expect_the_truth(verifier, truth, within_s=120)  # nothing stays poisoned
        assert verifier.stats()["retries"] > 10
        assert [one.in_flight for one in verifier.endpoint_stats()] == [0, 0]


async def test_one_hung_request_in_twenty_costs_its_timeout_and_no_verdict(
    pool: JudgePool, truth: dict[Pair, Category]
) -> None:
    async with behind_proxies(pool, request_timeout_s=5, chats_per_request=1) as (proxies, verifier):
        await expect_the_truth(verifier, truth, within_s=120)
        for proxy in proxies:
            proxy.inject(lambda number: fault_proxy.hang if number % 20 == 3 else None)
        await expect_the_truth(verifier, truth, within_s=120)
        assert verifier.stats()["retries"] >= 2
        assert [one.in_flight for one in verifier.endpoint_stats()] == [0, 0]


async def test_one_replica_that_only_fails_is_left_alone(pool: JudgePool, truth: dict[Pair, Category]) -> None:
    for name in ("reset", "hang", "garbage"):
        async with behind_proxies(pool, request_timeout_s=3) as (proxies, verifier):
            proxies[0].inject(sometimes(getattr(fault_proxy, name), 1.0, 0), everything=True)
            await expect_the_truth(verifier, truth, within_s=120)
            proxies[0].inject()
            await until(lambda v=verifier: v.endpoint_stats()[0].state is not State.EJECTED, within_s=60)
            await expect_the_truth(verifier, truth, within_s=120)
            assert verifier.endpoint_stats()[0].state is State.HEALTHY


async def test_all_replicas_gone_for_a_while_lose_no_verdict(pool: JudgePool, truth: dict[Pair, Category]) -> None:
    async with behind_proxies(pool) as (proxies, verifier):
        for proxy in proxies:
            await proxy.go_down()
        waiting = asyncio.create_task(expect_the_truth(verifier, truth, within_s=120))
        await asyncio.sleep(4)
        assert not waiting.done()
        for proxy in proxies:
            await proxy.come_up()
        await waiting
        assert verifier.stats()["returns"] >= 1


TOTAL = {
    "down": {Reason.CONNECTION},
    "garbage": {Reason.MALFORMED, Reason.TIMEOUT},
    "foreign_label": {Reason.OFF_LABEL, Reason.MALFORMED, Reason.TIMEOUT},
}
"""What may befall all replicas at once, and the reasons by which that shows."""


@pytest.mark.parametrize("fault", TOTAL)
async def test_an_outage_beyond_the_deadline_is_bounded_clear_and_poisons_nothing(
    pool: JudgePool, truth: dict[Pair, Category], tmp_path: Path, fault: str
) -> None:
    kept = {"cache_size": 1000, "store": StoreConfig(path=str(tmp_path / "verdicts.db"))}
    known = PAIRS[::4]
    async with behind_proxies(pool, total_deadline_s=10.0, **kept) as (proxies, verifier):
        await asyncio.gather(*map(verifier.verify, known))
        for proxy in proxies:
            if fault == "down":
                await proxy.go_down()
            else:
                proxy.inject(sometimes(getattr(fault_proxy, fault), 1.0, 0))
        begun = time.monotonic()
        judgements = dict(zip(PAIRS, await ask_all(verifier), strict=True))
        assert time.monotonic() - begun < 40
        judged = {pair: j.category for pair, j in judgements.items() if isinstance(j, Verdict)}
        assert judged == {pair: truth[pair] for pair in known}
        lost = [judgement for judgement in judgements.values() if isinstance(judgement, Unscorable)]
        assert {judgement.reason for judgement in lost} <= TOTAL[fault]
        assert verifier.stats()["unscorable"] == len(lost) == len(PAIRS) - len(known)
        for proxy in proxies:
            proxy.inject()
            await proxy.come_up()
        await until(lambda: any(one.state is not State.EJECTED for one in verifier.endpoint_stats()), within_s=60)
        # The same verifier, with all that it remembers of the outage.
        await expect_the_truth(verifier, truth, within_s=120)
        assert verifier.stats()["live"] == len(PAIRS)
        await expect_the_truth(verifier, truth, within_s=120)
        assert verifier.stats()["live"] == len(PAIRS)
        async with judged_by(tuple(proxy.url for proxy in proxies), **kept) as later:
            await expect_the_truth(later, truth, within_s=120)
            assert later.stats()["store_hits"] == len(PAIRS)


@pytest.mark.parametrize("damage", ["entries", "file"])
async def test_a_corrupted_store_costs_no_verdict(
    pool: JudgePool, truth: dict[Pair, Category], tmp_path: Path, damage: str
) -> None:
    path = tmp_path / "verdicts.db"
    kept = {"store": StoreConfig(path=str(path))}
    async with judged_by(pool.config.endpoints, **kept) as verifier:
        await expect_the_truth(verifier, truth, within_s=120)
    if damage == "entries":
        with contextlib.closing(sqlite3.connect(path)) as connection, connection:
            other = "CASE category WHEN 'wrong' THEN 'specific' ELSE 'wrong' END"
            connection.execute(f"UPDATE verdicts SET category = {other}")
    else:
        content = bytearray(path.read_bytes())
        content[4096:] = random.Random(0).randbytes(len(content) - 4096)
        path.write_bytes(content)
    async with judged_by(pool.config.endpoints, **kept) as verifier:
        await expect_the_truth(verifier, truth, within_s=120)
        assert verifier.stats()["live"] == len(PAIRS)
    async with judged_by(pool.config.endpoints, **kept) as verifier:  # and nothing stays poisoned
        await expect_the_truth(verifier, truth, within_s=120)
        assert verifier.stats()["store_hits"] == len(PAIRS)


async def test_a_slow_start_is_waited_for(pool: JudgePool, truth: dict[Pair, Category]) -> None:
    proxy = fault_proxy.FaultProxy(pool.config.endpoints[0])
    await proxy.start()
    try:
        await proxy.go_down()
        opening = asyncio.create_task(_come_up_after(proxy, 3.0))
        async with judged_by((proxy.url,)) as verifier:
            await opening
            await expect_the_truth(verifier, truth, within_s=120)
    finally:
        await proxy.stop()


async def _come_up_after(proxy: Any, seconds: float) -> None:
    await asyncio.sleep(seconds)
    await proxy.come_up()


def api_server(port: int) -> psutil.Process:
    """The vLLM API server that was told to listen at the port."""
    for process in psutil.Process().children(recursive=True):
        words = words_of(process)
        if "serve" in words and str(port) in words and not any(word.endswith("subreaper.py") for word in words):
            return process
    raise AssertionError(f"no server at port {port}")


async def test_a_replica_killed_in_the_middle_of_a_batch_loses_no_verdict_and_comes_back(
    pool: JudgePool, truth: dict[Pair, Category], tmp_path_factory: pytest.TempPathFactory
) -> None:
    urls = pool.config.endpoints
    async with judged_by(urls, total_deadline_s=STARTUP_S) as verifier:
        # Three rounds in a row, so that the kill falls into the middle of the work.
        rounds = asyncio.create_task(_several(verifier, truth, 3))
        await until(lambda: verifier.stats()["attempts"] >= len(PAIRS) / 2, within_s=60)
        victim = api_server(int(urls[0].rpartition(":")[2]))
        os.kill(victim.pid, signal.SIGKILL)
        await rounds
        assert verifier.endpoint_stats()[0].failed >= 1  # it was at work when it was killed
        await until(lambda: pool.restarts()[0] == 1, within_s=60)
        await until(lambda: verifier.endpoint_stats()[0].state is not State.EJECTED, within_s=STARTUP_S)
        await until(lambda: pool.alive() == [True, True], within_s=60)
        assert pool.config.endpoints == urls
        before = verifier.endpoint_stats()[0].attempts
        await expect_the_truth(verifier, truth, within_s=60)
        assert verifier.endpoint_stats()[0].attempts > before
    assert list(pool._log_dir.glob("tiny-0.crash-*.log"))


async def test_all_replicas_killed_at_once_is_an_outage_that_ends(pool: JudgePool, truth: dict[Pair, Category]) -> None:
    """Who has the patience gets every verdict, who has not gets bounded failures, and later the truth."""
    urls, earlier, patience_s = pool.config.endpoints, pool.restarts(), 5.0
    async with (
        judged_by(urls, total_deadline_s=STARTUP_S) as patient,
        judged_by(urls, total_deadline_s=patience_s) as hasty,
    ):
        rounds = asyncio.create_task(_several(patient, truth, 3))
        await until(lambda: patient.stats()["attempts"] >= len(PAIRS) / 2, within_s=60)
        for url in urls:
            os.kill(api_server(int(url.rpartition(":")[2])).pid, signal.SIGKILL)
        begun = time.monotonic()
        judgements = await ask_all(hasty)
        assert time.monotonic() - begun < patience_s + 5
        assert {type(judgement) for judgement in judgements} == {Unscorable}
        assert not rounds.done()
        await rounds
        assert [now - before for now, before in zip(pool.restarts(), earlier, strict=True)] == [1, 1]
        await until(lambda: all(one.state is not State.EJECTED for one in hasty.endpoint_stats()), within_s=STARTUP_S)
        await expect_the_truth(hasty, truth, within_s=60)


async def _several(verifier: LLMVerifier, truth: dict[Pair, Category], times: int) -> None:
    for _ in range(times):
        await expect_the_truth(verifier, truth, within_s=STARTUP_S)


async def test_a_lost_actor_is_replaced_and_stopping_leaves_nothing(
    pool: JudgePool, truth: dict[Pair, Category]
) -> None:
    urls = pool.config.endpoints
    actor = next(p for p in psutil.Process().children(recursive=True) if "ReplicaActor" in " ".join(words_of(p)))
    earlier = pool.restarts()
    actor.kill()
    await until(lambda: sum(pool.restarts()) > sum(earlier), within_s=60)
    async with judged_by(urls, total_deadline_s=STARTUP_S, startup_deadline_s=STARTUP_S) as verifier:
        await expect_the_truth(verifier, truth, within_s=STARTUP_S)
    assert pool.config.endpoints == urls
    servers = [p for p in psutil.Process().children(recursive=True) if "serve" in words_of(p)]
    assert servers
    pool.stop()
    _, left = psutil.wait_procs(servers, timeout=30)
    assert not left
