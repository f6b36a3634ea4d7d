"""A store that fails, hangs and comes back: no caller ever notices, and the metrics do."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import pytest

from speciarl.category import Category
from speciarl.verdict import Judgement, Pair, Reason, Source, Unscorable, Verdict
from speciarl.verifier_server.stats import Stats
from speciarl.verifier_server.store import JudgeIdentity, ReadThroughStore, Record, ResilientStore, StoreError

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend(virtual_time: Any) -> Any:
    """No sockets here."""
    return virtual_time


JUDGE = JudgeIdentity("vllm", "org/judge", None, "prompt", ("wrong", "right"), "first_token", "{}")
TIMEOUT_S = 0.15
RETRY_S = 0.05


class FakeStore:
    """Verdicts in a dictionary, and faults on demand: `broken` names the operations that fail, `hanging` those that
    never end."""

    where = "nowhere"

    def __init__(self) -> None:
        self.entries: dict[bytes, Record] = {}
        self.broken: set[str] = set()
        self.hanging: set[str] = set()
        self.calls: list[tuple[str, int]] = []
        self.corrupt = 0

    async def _fault(self, operation: str, count: int) -> None:
        self.calls.append((operation, count))
        await asyncio.sleep(0)
        if operation in self.hanging:
            await asyncio.sleep(60)
        if operation in self.broken:
            raise StoreError(f"verdict store nowhere cannot be used: {operation} fails")

    async def get(self, keys: Sequence[bytes]) -> list[Record | None]:
        await self._fault("get", len(keys))
        return [self.entries.get(key) for key in keys]

    async def put(self, judge: JudgeIdentity, records: Sequence[Record]) -> list[Record]:
        await self._fault("put", len(records))
        return [self.entries.setdefault(record.key, record) for record in records]


def record_of(prediction: str, category: Category = Category.WRONG) -> Record:
    return Record.of(JUDGE.fingerprint, Pair("lion", prediction), Verdict(category, None, Source.LIVE), 1.0)


def resilient(store: FakeStore, stats: Stats, **changes: Any) -> ResilientStore:
    return ResilientStore(store, JUDGE, TIMEOUT_S, stats, **({"retry_s": RETRY_S} | changes))  # type: ignore[arg-type]


def clock() -> float:
    return asyncio.get_running_loop().time()


async def recovered(stats: Stats) -> None:
    expires = clock() + 60
    while stats.store_degraded:
        assert clock() < expires
        await asyncio.sleep(0.01)


CAT = record_of("cat")


async def test_concurrent_questions_share_batches() -> None:
    store = FakeStore()
    outer = resilient(store, Stats())
    records = [record_of(f"cat {i}") for i in range(2500)]
    assert await asyncio.gather(*map(outer.put, records)) == records
    assert await asyncio.gather(*(outer.get(record.key) for record in records)) == records
    assert [count for operation, count in store.calls if operation == "put"] == [1000, 1000, 500]
    assert max(count for operation, count in store.calls if operation == "get") == 1000
    await outer.aclose()


@pytest.mark.parametrize("fault", ["broken", "hanging"])
async def test_a_store_that_cannot_be_read(fault: str, caplog: pytest.LogCaptureFixture) -> None:
    store, stats = FakeStore(), Stats()
    store.entries[CAT.key] = CAT
    outer = resilient(store, stats)
    getattr(store, fault).add("get")
    begun = clock()
    with caplog.at_level(logging.WARNING):
        assert await asyncio.gather(*(outer.get(CAT.key) for _ in range(50))) == [None] * 50
        assert await outer.get(CAT.key) is None
        assert clock() - begun < TIMEOUT_S * 3
        assert len(caplog.messages) == 1
        assert "nowhere" in caplog.messages[0]
        assert "in memory only" in caplog.messages[0]
        assert (stats.store_degraded, stats.store_errors) == (1, 1)
        getattr(store, fault).clear()
        await recovered(stats)
        assert "works again; 0 verdicts were written" in caplog.messages[-1]
    assert await outer.get(CAT.key) == CAT
    await outer.aclose()


@pytest.mark.parametrize("fault", ["broken", "hanging"])
async def test_a_store_that_cannot_be_written_is_still_read_and_gets_the_verdicts_later(
    fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    store, stats = FakeStore(), Stats()
    store.entries[CAT.key] = CAT
    outer = resilient(store, stats)
    getattr(store, fault).add("put")
    records = [record_of(f"dog {i}") for i in range(2500)]
    with caplog.at_level(logging.WARNING):
        assert await asyncio.gather(*map(outer.put, records)) == records
        assert await outer.get(CAT.key) == CAT
        assert stats.store_degraded == 1
        expires = clock() + 60
        while stats.store_errors < 2:
            assert clock() < expires
            await asyncio.sleep(0.01)
        assert "2500 verdicts wait to be written, 0 are lost" in caplog.text
        getattr(store, fault).clear()
        await recovered(stats)
        assert "works again; 2500 verdicts were written" in caplog.messages[-1]
    assert set(store.entries) == {CAT.key, *(record.key for record in records)}
    await outer.aclose()


async def test_what_others_wrote_meanwhile_is_the_pinned_verdict() -> None:
    store, stats = FakeStore(), Stats()
    earlier: list[Record] = []
    outer = resilient(store, stats, on_earlier=earlier.append)
    store.broken.add("put")
    mine, theirs = record_of("cat", Category.GENERIC), record_of("cat", Category.SPECIFIC)
    assert await outer.put(mine) == mine
    await outer.put(record_of("dog"))
    store.entries[theirs.key] = theirs
    store.broken.clear()
    await recovered(stats)
    assert earlier == [theirs]
    await outer.aclose()


async def test_the_backlog_is_bounded_and_what_is_lost_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    store, stats = FakeStore(), Stats()
    outer = resilient(store, stats, backlog=3, retry_s=60.0)
    store.broken.add("put")
    for i in range(5):
        await outer.put(record_of(f"cat {i}"))
    assert stats.store_lost == 2
    await outer.aclose()
    assert stats.store_lost == 5
    assert "3 verdicts were never written" in caplog.text
    await outer.aclose()
    assert stats.store_lost == 5


async def test_closing_writes_what_is_left() -> None:
    store, stats = FakeStore(), Stats()
    outer = resilient(store, stats, retry_s=60.0)
    store.broken.add("put")
    await outer.put(CAT)
    store.broken.clear()
    await outer.aclose()
    assert store.entries == {CAT.key: CAT}
    assert stats.store_lost == 0


def read_through(store: FakeStore, stats: Stats, deadline_s: float = 5.0) -> ReadThroughStore:
    return ReadThroughStore(resilient(store, stats), JUDGE, deadline_s, stats)


async def never(_: float) -> Judgement:
    raise AssertionError("the judge was asked")


async def test_a_known_pair_is_not_judged() -> None:
    store, stats = FakeStore(), Stats()
    store.entries[CAT.key] = CAT
    assert await read_through(store, stats).get_or_judge(CAT.pair, never) == CAT.verdict
    assert CAT.verdict.source is Source.STORE


async def test_the_judge_has_the_time_that_the_look_up_left() -> None:
    store, stats = FakeStore(), Stats()
    store.hanging.add("get")
    left: list[float] = []

    async def ask(within_s: float) -> Judgement:
        left.append(within_s)
        return Verdict(Category.GENERIC, None, Source.LIVE)

    judgement = await read_through(store, stats, deadline_s=0.4).get_or_judge(CAT.pair, ask)
    assert judgement == Verdict(Category.GENERIC, None, Source.LIVE)
    assert left == [pytest.approx(0.4 - TIMEOUT_S)]
    assert stats.store_seconds == pytest.approx(TIMEOUT_S)
    assert store.entries[CAT.key].verdict.category is Category.GENERIC


async def test_the_verdict_that_was_first_is_used() -> None:
    store, stats = FakeStore(), Stats()

    async def ask(_: float) -> Judgement:
        store.entries[CAT.key] = record_of("cat", Category.SPECIFIC)  # somebody was faster
        return Verdict(Category.GENERIC, 2.0, Source.LIVE)

    assert await read_through(store, stats).get_or_judge(CAT.pair, ask) == Verdict(Category.SPECIFIC, None, Source.LIVE)


@pytest.mark.parametrize("outcome", [Unscorable(Reason.TIMEOUT), ZeroDivisionError(), asyncio.CancelledError()])
async def test_only_verdicts_are_written(outcome: Unscorable | BaseException) -> None:
    store, stats = FakeStore(), Stats()

    async def ask(_: float) -> Judgement:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    answered = asyncio.gather(read_through(store, stats).get_or_judge(CAT.pair, ask), return_exceptions=True)
    (judgement,) = await answered
    assert judgement == outcome if isinstance(outcome, Unscorable) else isinstance(judgement, type(outcome))
    assert store.entries == {}
