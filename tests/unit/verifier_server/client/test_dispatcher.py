"""The local queue, and the pause before a retry: drawn evenly from 0 to a bound that doubles up to a limit."""

import asyncio
import itertools
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciarl.utils.deadline import within
from speciarl.verdict import Reason, Unscorable
from speciarl.verifier_server.client.dispatcher import LONGEST_BACKOFF_S, Dispatcher, PrioritySemaphore
from speciarl.verifier_server.client.router import Endpoint, Router, State
from speciarl.verifier_server.config import parse_config
from speciarl.verifier_server.stats import Stats

pytestmark = pytest.mark.anyio

FOR_EVER_S = 1e6


@pytest.fixture
def anyio_backend(virtual_time: Any) -> Any:
    """No sockets here."""
    return virtual_time


class Longest(random.Random):
    """Always draws the upper bound, and asserts that the lower one is 0."""

    def uniform(self, a: float, b: float) -> float:
        assert a == 0.0
        return b


class BabblingClient:
    """Answers at once, with what is no label. That is held against the pair and not against the server, so nothing but
    the back-off makes a pair wait."""

    url = "http://fake"

    def __init__(self) -> None:
        self.asked_at: list[float] = []

    async def chat(self, _: object) -> object:
        self.asked_at.append(asyncio.get_running_loop().time())
        return {}


def read(_: object) -> Unscorable:
    return Unscorable(Reason.OFF_LABEL, "hm")


class Asking:
    """A dispatcher with one endpoint, and when that was asked."""

    def __init__(self, chance: random.Random, backoff_s: float, retries: int, deadline_s: float = FOR_EVER_S) -> None:
        self.client, self.stats = BabblingClient(), Stats()
        client: Any = self.client
        config = parse_config(
            {"model": "fake", "endpoints": ["http://fake"], "backoff_s": backoff_s, "retries": retries}
            | {"total_deadline_s": deadline_s, "max_concurrency": 1000}
        )
        self.dispatcher = Dispatcher(config, Router([Endpoint(client)], 5.0, self.stats), self.stats, chance)

    async def pauses(self) -> list[float]:
        """Ask about one pair until it is given up; the seconds between the attempts."""
        outcome = await self.dispatcher.ask({}, read)
        assert isinstance(outcome, Unscorable)
        assert outcome.reason is Reason.OFF_LABEL
        times = self.client.asked_at
        return [later - earlier for earlier, later in itertools.pairwise(times)]


def bounds(backoff_s: float, retries: int) -> list[float]:
    return [min(backoff_s * 2**retry, LONGEST_BACKOFF_S) for retry in range(retries)]


async def test_the_bound_doubles_with_each_retry_up_to_the_limit() -> None:
    asking = Asking(Longest(), 0.5, 8)
    assert await asking.pauses() == pytest.approx([0.5, 1, 2, 4, 8, 15, 15, 15])
    assert asking.stats.backoff_seconds == pytest.approx(60.5)


async def test_the_limit_holds_however_often_and_however_long() -> None:
    assert (await Asking(Longest(), 1.0, 3000).pauses())[4:] == pytest.approx([LONGEST_BACKOFF_S] * 2996)
    assert await Asking(Longest(), 100.0, 2).pauses() == pytest.approx([LONGEST_BACKOFF_S] * 2)


async def test_each_pause_is_drawn_from_the_given_source() -> None:
    chance = random.Random(7)
    drawn = [chance.uniform(0.0, bound) for bound in bounds(0.5, 8)]
    assert await Asking(random.Random(7), 0.5, 8).pauses() == pytest.approx(drawn)
    assert await Asking(random.Random(8), 0.5, 8).pauses() != pytest.approx(drawn)


async def test_pairs_that_fail_together_come_back_spread_over_the_whole_bound() -> None:
    asking = Asking(random.Random(0), 2.0, 1)
    await asyncio.gather(*(asking.dispatcher.ask({}, read) for _ in range(400)))
    first, second = asking.client.asked_at[:400], asking.client.asked_at[400:]
    assert (set(first), len(second)) == ({0.0}, 400)
    assert len(set(second)) > 390
    quarters = [sum(quarter <= 2 * at < quarter + 1 for at in second) for quarter in range(4)]
    assert all(70 < count < 130 for count in quarters)


async def test_no_back_off_is_no_pause() -> None:
    assert await Asking(Longest(), 0.0, 5).pauses() == [0.0] * 5


async def test_a_pause_that_would_outlast_the_deadline_is_not_begun() -> None:
    asking = Asking(Longest(), 0.5, 8, deadline_s=3.0)
    assert await asking.pauses() == pytest.approx([0.5, 1.0])
    assert asyncio.get_running_loop().time() == pytest.approx(1.5)


async def test_who_is_cancelled_at_a_judge_gives_the_place_back_at_once() -> None:
    asking = Asking(Longest(), 0.5, 8)
    never = asyncio.Event()

    async def hang(_: object) -> object:
        await never.wait()
        raise AssertionError

    asking.client.chat = hang  # type: ignore[method-assign]
    task = asyncio.create_task(asking.dispatcher.ask({}, read))
    await asyncio.sleep(1)
    (endpoint,) = asking.dispatcher.router.endpoints
    assert (endpoint.in_flight, asking.dispatcher._slots.held) == (1, 1)
    task.cancel()
    await asyncio.wait({task})
    assert (endpoint.in_flight, asking.dispatcher._slots.held, asking.dispatcher.waiting) == (0, 0, 0)
    assert (endpoint.failures, endpoint.failed) == (0, 0)


@given(st.integers(1, 3), st.lists(st.tuples(st.integers(0, 99), st.booleans()), max_size=12, unique_by=lambda t: t[0]))
def test_slots_go_by_turn_and_none_is_lost(count: int, turns: list[tuple[int, bool]]) -> None:
    """Each visitor has a turn, and goes away while waiting if so marked."""

    async def run() -> list[int]:
        places, served = PrioritySemaphore(count), list[int]()
        for holder in range(count):
            await places.acquire(-holder)

        async def visit(turn: int) -> None:
            await places.acquire(turn)
            served.append(turn)

        visits = [asyncio.create_task(visit(turn)) for turn, _ in turns]
        await asyncio.sleep(0)
        for (_, leaves), task in zip(turns, visits, strict=True):
            if leaves:
                task.cancel()
        await asyncio.sleep(0)
        for _ in range(count + len(turns)):
            places.release()
            await asyncio.sleep(0)
        staying = [task for (_, leaves), task in zip(turns, visits, strict=True) if not leaves]
        await asyncio.gather(*staying)
        # Every place came back, and those of the served ones are free as well.
        for turn in range(count + len(turns) - len(staying)):
            await within(30, places.acquire(turn))
        return served

    assert asyncio.run(run()) == sorted(turn for turn, leaves in turns if not leaves)


async def test_a_place_granted_to_one_who_just_left_goes_on() -> None:
    places = PrioritySemaphore(1)
    await places.acquire(0)
    leaving, next_one = asyncio.create_task(places.acquire(1)), asyncio.create_task(places.acquire(2))
    await asyncio.sleep(0)
    places.release()
    leaving.cancel()
    await within(30, next_one)
    assert leaving.cancelled()


async def test_who_waits_for_a_server_to_return_is_counted_as_waiting() -> None:
    asking = Asking(random.Random(0), 0.0, 0)
    (endpoint,) = asking.dispatcher.router.endpoints
    endpoint.status = State.EJECTED
    task = asyncio.create_task(asking.dispatcher.ask({}, read, pairs=3))
    await asyncio.sleep(1)
    assert (asking.dispatcher._slots.held, asking.dispatcher.waiting) == (1, 3)
    task.cancel()
    await asyncio.wait({task})
    assert (asking.dispatcher._slots.held, asking.dispatcher.waiting) == (0, 0)
