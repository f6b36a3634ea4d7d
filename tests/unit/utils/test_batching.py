"""What is asked at about the same time is answered in one go, and nobody is left waiting."""

import asyncio
from collections.abc import Sequence
from typing import Any, TypeAlias

import pytest

from speciarl.utils.batching import Batcher, Query, in_order
from speciarl.utils.deadline import within

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend(virtual_time: Any) -> Any:
    """No sockets here."""
    return virtual_time


Bundle: TypeAlias = "Sequence[Query[int, str]]"


def bundler(answer: object, most: int, gather_s: float) -> "Batcher[int, str]":
    return Batcher(answer, most, gather_s, closed="closed")  # type: ignore[arg-type]


async def test_questions_travel_together_and_replies_come_back_to_their_own() -> None:
    sent: list[int] = []

    async def answer(asked: Bundle) -> None:
        sent.append(len(asked))
        await asyncio.sleep(0)
        for one in asked:
            one.reply(str(one.question))
            one.reply("a second reply is dropped")

    gathering = bundler(answer, 4, 0.01)
    assert await asyncio.gather(*map(gathering.ask, range(10))) == list(map(str, range(10)))
    assert sent == [4, 4, 2]
    await gathering.aclose()


async def test_who_leaves_while_questions_are_gathered_is_not_asked_for() -> None:
    sent: list[list[int]] = []

    async def answer(asked: Bundle) -> None:
        sent.append([one.question for one in asked])
        for one in asked:
            one.reply("yes")

    gathering = bundler(answer, 4, 0.02)
    stays, leaves = (asyncio.create_task(gathering.ask(number)) for number in range(2))
    await asyncio.sleep(0)
    leaves.cancel()
    assert await stays == "yes"
    assert sent == [[0]]


async def test_work_is_broken_off_when_the_last_has_left_and_not_before() -> None:
    begun, broken_off = asyncio.Event(), asyncio.Event()

    async def answer(_: Bundle) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            broken_off.set()

    gathering = bundler(answer, 2, 30.0)
    first, last = (asyncio.create_task(gathering.ask(number)) for number in range(2))
    await begun.wait()
    first.cancel()
    await asyncio.wait({first})
    for _ in range(5):
        await asyncio.sleep(0)
    assert not broken_off.is_set()
    last.cancel()
    await within(30, broken_off.wait())
    await gathering.aclose()


async def test_nobody_is_left_waiting_when_the_work_breaks_forgets_or_is_cut_off() -> None:
    async def broken(_: Bundle) -> None:
        raise RuntimeError("bug")

    with pytest.raises(RuntimeError, match="bug"):
        await bundler(broken, 1, 0.01).ask(0)

    async def forget(asked: Bundle) -> None:
        asked[0].reply("yes")

    gathering = bundler(forget, 2, 30.0)
    assert await asyncio.gather(*map(gathering.ask, range(2))) == ["yes", "closed"]

    async def hang(_: Bundle) -> None:
        await asyncio.Event().wait()

    gathering = bundler(hang, 2, 30.0)
    waiting = [asyncio.create_task(gathering.ask(number)) for number in range(3)]
    await asyncio.sleep(0)
    await gathering.aclose()
    await gathering.aclose()
    assert await asyncio.gather(*waiting) == ["closed"] * 3


async def test_one_at_a_time_what_is_asked_meanwhile_makes_up_the_next_bundle() -> None:
    sent: list[list[int]] = []

    async def answer(numbers: list[int]) -> list[float]:
        sent.append(numbers)
        await asyncio.sleep(0.01)
        return [1 / number for number in numbers]

    gathering: Batcher[int, float] = Batcher(in_order(answer), 3, 0.0, closed=-1.0, serial=True)
    first = asyncio.create_task(gathering.ask(1))
    await asyncio.sleep(0.005)
    others = [asyncio.create_task(gathering.ask(number)) for number in (2, 0, 4, 5)]
    outcomes = await asyncio.gather(first, *others, return_exceptions=True)
    assert sent == [[1], [2, 0, 4], [5]]
    assert [type(outcome) for outcome in outcomes] == [float, *[ZeroDivisionError] * 3, float]
    waiting = [asyncio.create_task(gathering.ask(number)) for number in range(1, 8)]
    await asyncio.sleep(0.005)
    await gathering.aclose()
    assert await asyncio.gather(*waiting) == [-1.0] * 7


async def test_one_at_a_time_work_goes_on_when_all_have_left() -> None:
    done: list[int] = []

    async def answer(numbers: list[int]) -> list[str]:
        await asyncio.sleep(0.01)
        done.extend(numbers)
        return list(map(str, numbers))

    gathering: Batcher[int, str] = Batcher(in_order(answer), 3, 0.0, closed="closed", serial=True)
    leaves = asyncio.create_task(gathering.ask(1))
    await asyncio.sleep(0.005)
    leaves.cancel()
    assert await gathering.ask(2) == "2"
    assert done == [1, 2]
