"""The local queue and the histograms: small parts on their own."""

import asyncio
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciarl.utils.deadline import within
from speciarl.verdict import Judgement
from speciarl.verifier_server.client.dispatcher import Places
from speciarl.verifier_server.client.in_flight import Flight
from speciarl.verifier_server.stats import SECONDS, Histogram, Stats

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend(virtual_time: Any) -> Any:
    """No sockets here."""
    return virtual_time


@given(st.integers(1, 3), st.lists(st.tuples(st.integers(0, 99), st.booleans()), max_size=12, unique_by=lambda t: t[0]))
def test_places_go_by_turn_and_none_is_lost(count: int, turns: list[tuple[int, bool]]) -> None:
    """Each visitor has a turn, and goes away while waiting if so marked."""

    async def run() -> list[int]:
        places, served = Places(count), list[int]()
        for holder in range(count):
            await places.take(-holder)

        async def visit(turn: int) -> None:
            await places.take(turn)
            served.append(turn)

        visits = [asyncio.create_task(visit(turn)) for turn, _ in turns]
        await asyncio.sleep(0)
        for (_, leaves), task in zip(turns, visits, strict=True):
            if leaves:
                task.cancel()
        await asyncio.sleep(0)
        for _ in range(count + len(turns)):
            places.give_back()
            await asyncio.sleep(0)
        staying = [task for (_, leaves), task in zip(turns, visits, strict=True) if not leaves]
        await asyncio.gather(*staying)
        # Every place came back, and those of the served ones are free as well.
        for turn in range(count + len(turns) - len(staying)):
            await within(30, places.take(turn))
        return served

    assert asyncio.run(run()) == sorted(turn for turn, leaves in turns if not leaves)


async def test_a_place_granted_to_one_who_just_left_goes_on() -> None:
    places = Places(1)
    await places.take(0)
    leaving, next_one = asyncio.create_task(places.take(1)), asyncio.create_task(places.take(2))
    await asyncio.sleep(0)
    places.give_back()
    leaving.cancel()
    await within(30, next_one)
    assert leaving.cancelled()


@given(st.lists(st.floats(0, 1000)))
def test_histograms_count_all_and_each_in_its_bucket(values: list[float]) -> None:
    histogram = Histogram()
    for value in values:
        histogram.note(value)
    bounds, counts, total = histogram.snapshot()
    assert bounds == SECONDS
    assert counts == tuple(sum(value <= bound for value in values) for bound in (*bounds, math.inf))
    assert total == pytest.approx(sum(values))


@pytest.mark.parametrize(
    "reply",
    [None, [], {"usage": None}, {"usage": {"prompt_tokens": "7", "completion_tokens": -1, "prompt_tokens_details": 3}}],
)
def test_usage_that_cannot_be_read_counts_nothing(reply: object) -> None:
    stats = Stats()
    keys = set(stats.as_dict())
    stats.note_usage(reply)
    assert (stats.prompt_tokens, stats.cached_tokens, stats.completion_tokens) == (0, 0, 0)
    assert set(stats.as_dict()) == keys


async def test_a_flight_is_dropped_only_before_a_judge_has_spoken() -> None:
    async def forever() -> Judgement:
        await asyncio.sleep(60)
        raise AssertionError

    def flying() -> Flight:
        flight = Flight()
        flight.task = asyncio.create_task(forever())
        flight.join()
        return flight

    queued, at_judge, settled, shared = flying(), flying(), flying(), flying()
    at_judge.depart()
    settled.settle()
    shared.join()
    for flight in (queued, at_judge, settled, shared):
        flight.leave()
    assert [flight.dropped for flight in (queued, at_judge, settled, shared)] == [True, False, False, False]
    at_judge.arrive()
    assert at_judge.drop_if_deserted()
    tasks = [flight.task for flight in (queued, at_judge, settled, shared) if flight.task is not None]
    await asyncio.sleep(0)
    assert [task.cancelled() for task in tasks] == [True, False, False, False]
    for task in tasks:
        task.cancel()
