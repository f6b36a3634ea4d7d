"""A time limit that costs no task of its own."""

import asyncio
from typing import Any

import pytest

from speciarl.verifier_server.deadline import Deadline, within

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend(virtual_time: Any) -> Any:
    """No sockets here."""
    return virtual_time


async def test_a_block_in_time_is_left_alone() -> None:
    with Deadline(0.05) as deadline:
        await asyncio.sleep(0)
    assert not deadline.missed
    await asyncio.sleep(0.1)  # the timer is gone


@pytest.mark.parametrize("seconds", [0.02, 0.0, -1.0])
async def test_a_late_block_is_broken_off_and_the_task_goes_on(seconds: float) -> None:
    with Deadline(seconds) as deadline:
        await asyncio.sleep(10)
    assert deadline.missed
    assert asyncio.get_running_loop().time() == pytest.approx(max(seconds, 0))
    await asyncio.sleep(0.01)


async def test_errors_and_results_pass_through() -> None:
    with pytest.raises(ValueError, match="mine"), Deadline(1.0):
        raise ValueError("mine")

    async def answer() -> int:
        with Deadline(1.0):
            return 7
        return 0

    assert await answer() == 7


async def test_a_cancellation_by_somebody_else_is_one() -> None:
    async def work() -> str:
        with Deadline(5.0):
            await asyncio.sleep(10)
        return "went on"

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_deadlines_nest() -> None:
    with Deadline(5.0) as outer:
        with Deadline(0.01) as inner:
            await asyncio.sleep(10)
        await asyncio.sleep(0.01)
    assert (outer.missed, inner.missed) == (False, True)
    with Deadline(0.01) as outer, Deadline(5.0) as inner:
        await asyncio.sleep(10)
    assert (outer.missed, inner.missed) == (True, False)


async def test_a_result_within_the_time_comes_back_and_a_late_one_is_an_error() -> None:
    assert await within(5.0, asyncio.sleep(0, "done")) == "done"
    assert await within(None, asyncio.sleep(0.01, "done")) == "done"
    with pytest.raises(asyncio.TimeoutError):
        await within(0.01, asyncio.sleep(10))


async def test_a_cancellation_in_the_instant_of_the_result_is_not_forgotten() -> None:
    """`asyncio.wait_for` forgets it before Python 3.12."""
    result = asyncio.get_running_loop().create_future()

    async def work() -> str:
        await within(5.0, result)
        return "went on"

    task = asyncio.create_task(work())
    await asyncio.sleep(0.01)
    result.set_result(None)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
