"""A time limit on one awaited thing."""

import asyncio
from typing import Any

import pytest

from speciarl.utils.deadline import within

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend(virtual_time: Any) -> Any:
    """No sockets here."""
    return virtual_time


async def test_a_result_within_the_time_comes_back_and_the_timer_is_gone() -> None:
    assert await within(0.05, asyncio.sleep(0, "done")) == "done"
    assert await within(None, asyncio.sleep(0.01, "done")) == "done"
    await asyncio.sleep(0.1)


@pytest.mark.parametrize("seconds", [0.02, 0.0, -1.0])
async def test_late_work_is_broken_off_and_the_task_goes_on(seconds: float) -> None:
    with pytest.raises(TimeoutError):
        await within(seconds, asyncio.sleep(10))
    assert asyncio.get_running_loop().time() == pytest.approx(max(seconds, 0))
    await asyncio.sleep(0.01)


async def test_errors_pass_through() -> None:
    async def fail() -> None:
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        await within(1.0, fail())


async def test_a_cancellation_by_somebody_else_is_one() -> None:
    async def work() -> str:
        await within(5.0, asyncio.sleep(10))
        return "went on"

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_deadlines_nest() -> None:
    async def outer(seconds: float) -> str:
        try:
            await within(seconds, asyncio.sleep(10))
        except TimeoutError:
            return await asyncio.sleep(0.01, "the inner one is missed")
        return "none is missed"

    assert await within(5.0, outer(0.01)) == "the inner one is missed"
    with pytest.raises(TimeoutError):
        await within(0.01, outer(5.0))


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


async def test_a_cancellation_in_the_instant_of_the_deadline_is_not_forgotten() -> None:
    async def work() -> str:
        with pytest.raises(TimeoutError):
            await within(1.0, asyncio.sleep(10))
        return "went on"

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_at(1.0, task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
