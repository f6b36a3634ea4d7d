"""Deadline: a time limit on one awaited thing."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def within(seconds: float | None, work: Awaitable[T]) -> T:
    """Result of `work`, awaited for at most `seconds` (None: no limit); raises TimeoutError past that.

    In place of `asyncio.wait_for`, which before Python 3.12 forgets a cancellation that comes in the instant in which
    the work ends (python/cpython#86296): the cancelled task would go on.
    """
    async with asyncio.timeout(seconds):
        return await work
