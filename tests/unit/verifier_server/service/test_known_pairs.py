"""A request's equal pairs are looked up once, and judged, answered and counted as if each had come alone."""

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciarl.verdict import Pair, Reason, Source, Unscorable, Verdict
from speciarl.verifier_server.config import parse_config
from speciarl.verifier_server.llm_verifier import LLMVerifier
from speciarl.verifier_server.service.requests import Late, judge_pairs, read_items, shared

TEXTS = st.text(max_size=5)
MANY = 10_000


@given(st.lists(st.tuples(TEXTS, TEXTS)))
def test_equal_pairs_become_one_object_in_their_places(rows: list[tuple[str, str]]) -> None:
    items = [{"ground_truth": truth, "prediction": prediction} for truth, prediction in rows]
    for pairs in (shared(rows), read_items(items)[0]):
        assert pairs == [Pair(*row) for row in rows]
        assert len(set(map(id, pairs))) == len(set(rows))


@pytest.mark.anyio
@pytest.mark.parametrize("repeated", [shared, lambda rows: [Pair(*row) for row in rows]], ids=["shared", "alone"])
async def test_every_row_is_judged_and_counted(
    fake_judge: Callable[[], Any], repeated: Callable[[list[tuple[str, str]]], list[Pair]]
) -> None:
    rows = [("lion", f"cat {index % 4}") for index in range(20)] + [("lion", " Lion"), ("lion", "I don't know")]
    settings = {"model": "fake", "prompt": "compact", "probe": False, "exact_shortcut": True, "abstain_shortcut": True}
    async with fake_judge().running() as judge:
        verifier = LLMVerifier(parse_config(settings | {"endpoints": [judge.url]}), random.Random(0))
        await verifier.start()
        judge.arm()
        try:
            first = await judge_pairs(verifier, repeated(rows), MANY, {})
            after_first = verifier.stats()
            again = await judge_pairs(verifier, repeated(rows), MANY, {})
        finally:
            await verifier.aclose()
        assert judge.chats == 4
    assert [one.category for one in first if isinstance(one, Verdict)] == [
        one.category for one in again if isinstance(one, Verdict)
    ]
    sources = [one.source for one in again if isinstance(one, Verdict)]
    assert sources == [Source.MEMORY] * 20 + [Source.SHORTCUT] * 2
    wanted = {"requests": 22, "live": 4, "deduplicated": 16, "shortcuts": 2, "memory_hits": 0, "unscorable": 0}
    assert {name: after_first[name] for name in wanted} == wanted
    totals = verifier.stats()
    assert {name: totals[name] for name in wanted} == wanted | {"requests": 44, "shortcuts": 4, "memory_hits": 20}


@pytest.mark.anyio
async def test_what_has_to_be_judged_is_not_counted_by_looking(fake_judge: Callable[[], Any]) -> None:
    settings = {"model": "fake", "prompt": "compact", "probe": False}
    async with fake_judge().running() as judge:
        verifier = LLMVerifier(parse_config(settings | {"endpoints": [judge.url]}), random.Random(0))
        await verifier.start()
        try:
            assert verifier.recall(Pair("lion", "cat"), 3) is None
            assert verifier.stats()["requests"] == 0
            await asyncio.gather(*(verifier.verify(Pair("lion", "cat")) for _ in range(2)))
            known = verifier.recall(Pair("Lion", " cat"), 3)
            assert isinstance(known, Verdict)
            assert (known.source, verifier.stats()["requests"], verifier.stats()["memory_hits"]) == (
                Source.MEMORY,
                5,
                3,
            )
        finally:
            await verifier.aclose()


@pytest.mark.anyio
async def test_a_late_pair_has_one_caller_until_its_verdict_or_until_its_client_leaves(
    fake_judge: Callable[[], Any],
) -> None:
    settings = {"model": "fake", "prompt": "compact", "probe": False, "chats_per_request": 1}
    async with fake_judge().running() as judge:
        verifier = LLMVerifier(parse_config(settings | {"endpoints": [judge.url]}), random.Random(0))
        await verifier.start()
        try:
            judge.arm()
            judge.gate.clear()
            late: Late = {}
            pair, other = Pair("lion", "cat"), Pair("lion", "dog")
            for _ in range(3):
                answer = await judge_pairs(verifier, [pair, pair, other], MANY, late, deadline_s=0.1)
                assert [one.reason for one in answer if isinstance(one, Unscorable)] == [Reason.TIMEOUT] * 3
            assert late.keys() == {pair, other}
            assert (verifier.stats()["in_flight"], verifier.stats()["dropped"]) == (2, 0)
            waiting = asyncio.create_task(judge_pairs(verifier, [other], MANY, late))
            await asyncio.sleep(0.05)
            waiting.cancel()  # nobody is left who wants it
            await asyncio.wait({waiting})
            await asyncio.sleep(0.05)
            assert late.keys() == {pair}
            assert (verifier.stats()["in_flight"], verifier.stats()["dropped"]) == (1, 1)
            judge.gate.set()
            (verdict,) = await judge_pairs(verifier, [pair], MANY, late)
            assert isinstance(verdict, Verdict)
            await asyncio.sleep(0)
            assert (late, judge.chats) == ({}, 2)
        finally:
            await verifier.aclose()
