"""A real Redis server that refuses, fills up, dies and comes back."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from speciarl.category import Category
from speciarl.verifier_server.config import StoreConfig
from speciarl.verifier_server.stats import Stats
from speciarl.verifier_server.store import (
    JudgeIdentity,
    Record,
    ResilientStore,
    StoreError,
    VerdictStore,
    build_store,
)
from speciarl.verifier_server.store.redis_store import RedisStore

pytestmark = pytest.mark.anyio

RecordOf = Callable[..., Record]


@pytest.fixture
async def open_redis(redis_server: Any) -> AsyncIterator[Callable[..., Any]]:
    """Opens stores on one server, as several services would."""
    stores: list[VerdictStore] = []

    async def open_store(**changes: Any) -> VerdictStore:
        settings = {"kind": "redis", "url": redis_server.url, "timeout_s": 2.0} | changes
        stores.append(build_store(StoreConfig.model_validate(settings)))
        await stores[-1].open()
        return stores[-1]

    yield open_store
    for store in stores:
        await store.aclose()


async def recovered(stats: Stats) -> None:
    expires = time.monotonic() + 20
    while stats.store_degraded:
        assert time.monotonic() < expires
        await asyncio.sleep(0.05)


async def test_foreign_types_and_prefixes(
    open_redis: Any, redis_server: Any, judge: JudgeIdentity, record_of: RecordOf
) -> None:
    store, apart = await open_redis(), await open_redis(prefix="other[*]")
    record = record_of("cat")
    client = redis_server.client()
    client.rpush(b"speciarl:1:verdict:" + record.key, "a list")
    client.set(b"speciarl:1:verdict:short", "x")
    assert await store.get([record.key]) == [None]
    assert await store.put(judge, [record]) == [record]
    assert await store.get([record.key]) == [record]
    assert [entry async for entries in apart.scan() for entry in entries] == []
    await apart.put(judge, [record_of("cat", Category.SPECIFIC)])
    assert [key async for entries in apart.scan() for key, _ in entries] == [record.key]
    entries = dict([entry async for entries in store.scan() for entry in entries])
    assert entries == {record.key: record, b"short": None}


async def test_passwords(make_redis: Callable[..., Any], tmp_path: Path, record_of: RecordOf) -> None:
    server = make_redis("--requirepass", "s3cret")
    secret = tmp_path / "password"
    secret.write_text("s3cret\n")
    right = build_store(StoreConfig(kind="redis", url=server.url, password_file=str(secret)))
    await right.open()
    await right.aclose()
    secret.write_text("wr0ng")
    for password_file in (str(secret), None):
        wrong = build_store(StoreConfig(kind="redis", url=server.url, password_file=password_file))
        with pytest.raises(StoreError, match="cannot be used") as error:
            await wrong.open()
        assert "wr0ng" not in str(error.value)
        assert "\n" not in str(error.value)


def test_a_password_file_that_cannot_be_read_and_urls_in_messages(tmp_path: Path) -> None:
    for content, message in ((None, "No such file"), (b"\xff", "not text"), (b"\n", "is empty")):
        file = tmp_path / "password"
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(StoreError, match=message):
            build_store(StoreConfig(kind="redis", url="redis://host", password_file=str(file)))
    assert RedisStore("redis://me:s3cret@host:1/0").where == "redis://host:1/0"
    with pytest.raises(StoreError, match="bad Redis `url`"):
        build_store(StoreConfig(kind="redis", url="redis://host?socket_timeout=soon"))


async def test_a_server_that_refuses_writes_is_refused_at_the_start(
    make_redis: Callable[..., Any], redis_server: Any
) -> None:
    replica = make_redis("--replicaof", "127.0.0.1", "1")
    with pytest.raises(StoreError, match="read only replica"):
        await build_store(StoreConfig(kind="redis", url=replica.url)).open()
    redis_server.kill()
    with pytest.raises(StoreError, match=r"redis\.sock"):
        await build_store(StoreConfig(kind="redis", url=redis_server.url)).open()


async def test_a_full_server_costs_no_verdict(
    open_redis: Any, redis_server: Any, judge: JudgeIdentity, record_of: RecordOf
) -> None:
    stats = Stats()
    store = ResilientStore(await open_redis(), judge, 2.0, stats, retry_s=0.1)
    known, new = record_of("cat"), record_of("dog")
    assert await store.put(known) == known
    redis_server.client().config_set("maxmemory", 1)
    assert await store.get(known.key) == known
    assert await store.get(new.key) is None
    assert await store.put(new) == new
    assert stats.store_degraded == 1
    redis_server.client().config_set("maxmemory", 0)
    await recovered(stats)
    assert await store.get(new.key) == new
    await store.aclose()


async def test_killed_and_started_again(
    open_redis: Any, redis_server: Any, judge: JudgeIdentity, record_of: RecordOf
) -> None:
    stats = Stats()
    inner = await open_redis()
    store = ResilientStore(inner, judge, 2.0, stats, retry_s=0.1)
    before, during = record_of("cat"), record_of("dog")
    assert await store.put(before) == before
    redis_server.kill()
    begun = time.monotonic()
    assert await store.get(during.key) is None
    assert await store.put(during) == during
    assert time.monotonic() - begun < 30
    assert stats.store_degraded == 1
    redis_server.start()
    await recovered(stats)
    assert await inner.get([before.key, during.key]) == [None, during]  # in memory only: it forgot, we did not
    assert dict(await inner.judges()) == {judge.fingerprint: judge}
    await store.aclose()
