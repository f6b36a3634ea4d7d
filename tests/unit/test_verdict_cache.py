"""What travels and what is shared: wire format, verdict cache, bundler."""

import asyncio
from collections.abc import Sequence

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciarl.category import Category
from speciarl.verdict import Judgement, Pair, Reason, Source, Unscorable, Verdict
from speciarl.verifier_server.bundler import Bundler
from speciarl.verifier_server.flight import Flight
from speciarl.verifier_server.stats import Stats
from speciarl.verifier_server.verdict_cache import VerdictCache
from speciarl.verifier_server.wire import from_wire, to_wire

pytestmark = pytest.mark.anyio

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


def echo(pair: Pair) -> Judgement:
    """A judgement that tells pairs apart."""
    return Unscorable(Reason.OFF_LABEL, pair.prediction)


async def test_pairs_travel_together_and_come_back_to_their_own() -> None:
    sent: list[int] = []

    async def send(pairs: Sequence[Pair]) -> list[Judgement]:
        sent.append(len(pairs))
        await asyncio.sleep(0.005)
        return [echo(pair) for pair in pairs]

    bundler = Bundler(send, most_pairs=4, gather_s=0.01)
    pairs = [Pair("dog", str(number)) for number in range(10)]
    assert await asyncio.gather(*map(bundler.ask, pairs)) == [echo(pair) for pair in pairs]
    assert sent == [4, 4, 2]
    await bundler.aclose()


async def test_who_leaves_while_pairs_are_gathered_is_not_asked_for() -> None:
    sent: list[Sequence[Pair]] = []

    async def send(pairs: Sequence[Pair]) -> list[Judgement]:
        sent.append(pairs)
        return [echo(pair) for pair in pairs]

    bundler = Bundler(send, most_pairs=4, gather_s=0.02)
    stays, leaves = (asyncio.create_task(bundler.ask(Pair("dog", name))) for name in ("stays", "leaves"))
    await asyncio.sleep(0)
    leaves.cancel()
    assert await stays == echo(Pair("dog", "stays"))
    assert sent == [[Pair("dog", "stays")]]


async def test_nobody_is_left_waiting_when_a_request_breaks_or_is_cut_off() -> None:
    async def broken(_: Sequence[Pair]) -> list[Judgement]:
        raise RuntimeError("bug")

    with pytest.raises(RuntimeError, match="bug"):
        await Bundler(broken, most_pairs=1, gather_s=0.01).ask(Pair("dog", "cat"))

    async def hang(_: Sequence[Pair]) -> list[Judgement]:
        await asyncio.sleep(60)
        return []

    bundler = Bundler(hang, most_pairs=2, gather_s=0.01)
    waiting = [asyncio.create_task(bundler.ask(Pair("dog", str(number)))) for number in range(3)]
    await asyncio.sleep(0)
    await bundler.aclose()
    closed = Unscorable(Reason.CANCELLED, "the verifier was closed")
    assert await asyncio.wait_for(asyncio.gather(*waiting), 1) == [closed] * 3
