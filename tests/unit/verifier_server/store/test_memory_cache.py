"""What travels and what is shared: wire format, verdict cache."""

import asyncio
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciarl.category import Category
from speciarl.verdict import Judgement, Pair, Reason, Source, Unscorable, Verdict
from speciarl.verifier_server.client.in_flight import Flight
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

    async def from_store(_: Flight) -> Judgement:
        await asyncio.sleep(0.01)
        return Verdict(Category.GENERIC, None, Source.STORE)

    pair = Pair("dog", "animal")
    found = await asyncio.gather(*(cache.judge_once(pair, from_store) for _ in range(3)))
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

    async def fail(_: Flight) -> Judgement:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.01)
        return Unscorable(Reason.TIMEOUT)

    pair = Pair("dog", "animal")
    assert await asyncio.gather(*(cache.judge_once(pair, fail) for _ in range(2))) == [Unscorable(Reason.TIMEOUT)] * 2
    assert cache.recall(pair) is None
    await cache.judge_once(pair, fail)
    assert asked == 2
