"""What travels and what is shared: wire format, verdict cache."""

import asyncio
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciarl.category import Category
from speciarl.utils.deadline import within
from speciarl.verdict import Judgement, Pair, Reason, Source, Unscorable, Verdict
from speciarl.verifier_server.stats import Stats
from speciarl.verifier_server.store.memory_cache import VerdictCache
from speciarl.wire import from_wire, to_wire

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend(virtual_time: Any) -> Any:
    """No sockets here."""
    return virtual_time


verdicts = st.builds(
    Verdict,
    category=st.sampled_from(Category),
    margin=st.one_of(st.none(), st.floats(0, allow_infinity=False)),
    source=st.sampled_from(Source),
    probabilities=st.one_of(st.none(), st.tuples(*[st.floats(0, 1)] * 6)),
)
judgements = st.one_of(verdicts, st.builds(Unscorable, st.sampled_from(Reason), st.text()))
plain = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=8,
)


@given(judgements)
def test_a_judgement_survives_the_journey_to_the_last_bit(judgement: Judgement) -> None:
    try:
        content = orjson.dumps(to_wire(judgement))
    except orjson.JSONEncodeError:
        assert isinstance(judgement, Unscorable)
        assert any(0xD800 <= ord(character) <= 0xDFFF for character in judgement.detail)
        return
    assert from_wire(orjson.loads(content)) == judgement


@given(plain)
def test_what_is_no_judgement_is_none(item: object) -> None:
    assert from_wire(item) is None


@given(judgements, plain, st.data())
def test_a_damaged_judgement_is_none_or_sound(judgement: Judgement, value: object, data: st.DataObject) -> None:
    item = to_wire(judgement)
    item[data.draw(st.sampled_from(sorted(item)))] = value
    found = from_wire(item)
    assert found is None or isinstance(found, Verdict | Unscorable)


async def test_the_cache_counts_each_caller_once_by_the_source_it_got() -> None:
    stats = Stats()
    cache = VerdictCache(2, stats)

    async def from_store() -> Judgement:
        await asyncio.sleep(0.01)
        return Verdict(Category.GENERIC, None, Source.STORE)

    pair = Pair("dog", "animal")
    found = await asyncio.gather(*(cache.single_flight(pair, from_store) for _ in range(3)))
    assert [verdict.source for verdict in found if isinstance(verdict, Verdict)] == [
        Source.STORE,
        Source.MEMORY,
        Source.MEMORY,
    ]
    assert cache.recall(pair) == Verdict(Category.GENERIC, None, Source.MEMORY)
    assert (stats.store_hits, stats.deduplicated, stats.memory_hits, stats.live) == (1, 2, 1, 0)
    assert cache.in_flight == 0


async def test_a_failure_is_told_to_all_who_wait_and_then_forgotten() -> None:
    cache = VerdictCache(2, Stats())
    asked = 0

    async def fail() -> Judgement:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.01)
        return Unscorable(Reason.TIMEOUT)

    pair = Pair("dog", "animal")
    assert (
        await asyncio.gather(*(cache.single_flight(pair, fail) for _ in range(2))) == [Unscorable(Reason.TIMEOUT)] * 2
    )
    assert cache.recall(pair) is None
    await cache.single_flight(pair, fail)
    assert asked == 2


class Judging:
    """Judges one pair when it may, and knows how often that was begun and broken off."""

    def __init__(self) -> None:
        self.stats = Stats()
        self.cache = VerdictCache(10, self.stats)
        self.may_answer = asyncio.Event()
        self.begun = self.broken_off = 0

    def ask(self) -> "asyncio.Task[Judgement]":
        """A caller."""
        return asyncio.create_task(self.cache.single_flight(Pair("dog", "animal"), self._judge))

    async def _judge(self) -> Judgement:
        self.begun += 1
        try:
            await self.may_answer.wait()
        except asyncio.CancelledError:
            self.broken_off += 1
            await asyncio.sleep(0.01)  # what is cancelled may take a moment to end
            raise
        return Verdict(Category.GENERIC, None, Source.LIVE)


async def leave(*callers: "asyncio.Task[Judgement]") -> None:
    for caller in callers:
        caller.cancel()
    await asyncio.wait(callers)


async def test_a_caller_that_leaves_takes_nothing_from_the_others() -> None:
    judging = Judging()
    first, second, third = judging.ask(), judging.ask(), judging.ask()
    await asyncio.sleep(0.001)
    await leave(first, third)
    assert (judging.broken_off, judging.cache.in_flight) == (0, 1)
    judging.may_answer.set()
    assert isinstance(await second, Verdict)
    assert (judging.begun, judging.stats.abandoned, judging.stats.dropped, judging.stats.deduplicated) == (1, 2, 0, 1)
    assert judging.cache.recall(Pair("dog", "animal")) is not None


async def test_the_last_caller_to_leave_cancels_and_the_next_one_starts_anew_at_once() -> None:
    judging = Judging()
    callers = [judging.ask() for _ in range(3)]
    await asyncio.sleep(0.001)
    await leave(*callers)
    assert judging.cache.in_flight == 0
    late = judging.ask()
    await asyncio.sleep(0.001)
    assert (judging.begun, judging.broken_off, judging.cache.in_flight) == (2, 1, 1)
    await asyncio.sleep(1)
    assert judging.cache.in_flight == 1  # the end of the first is not taken for that of the second
    judging.may_answer.set()
    verdict = await late
    assert isinstance(verdict, Verdict)
    assert verdict.source is Source.LIVE
    assert (judging.stats.abandoned, judging.stats.dropped, judging.stats.live) == (3, 1, 1)


async def test_closing_waits_for_what_was_cancelled_and_tells_those_who_wait() -> None:
    judging = Judging()
    gone = judging.ask()
    await asyncio.sleep(0.001)
    await leave(gone)
    waiting = judging.ask()
    await asyncio.sleep(0.001)
    await judging.cache.aclose()
    assert (judging.broken_off, judging.cache.in_flight, judging.cache._tasks) == (2, 0, set())
    assert await waiting == Unscorable(Reason.CANCELLED, "the verifier was closed")


@given(st.lists(st.sampled_from(["ask", "leave first", "leave last", "answer", "turn"]), max_size=30))
def test_whoever_stays_gets_a_verdict_and_nothing_is_judged_for_nobody(events: list[str]) -> None:
    async def run() -> None:
        judging = Judging()
        staying: list[asyncio.Task[Judgement]] = []
        for event in events:
            if event == "ask":
                staying.append(judging.ask())
            elif event == "turn":
                await asyncio.sleep(0)
            elif event == "answer":
                judging.may_answer.set()
            elif staying:
                staying.pop(0 if event == "leave first" else -1).cancel()
        for _ in range(10):
            await asyncio.sleep(0)
        answered = judging.may_answer.is_set()
        assert judging.cache.in_flight == (1 if staying and not answered else 0)
        judging.may_answer.set()
        assert all(isinstance(judgement, Verdict) for judgement in await within(30, asyncio.gather(*staying)))
        await judging.cache.aclose()
        assert judging.cache._tasks == set()

    asyncio.run(run())
