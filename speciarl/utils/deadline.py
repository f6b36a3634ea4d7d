"""Deadline: a time limit on one awaited thing."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def within(seconds: float | None, work: Awaitable[T]) -> T:
    """Await `work`; raises TimeoutError when it takes longer. No limit where `seconds` is None.

    Before Python 3.12 `asyncio.wait_for` forgets a cancellation that falls into the instant in which the work ends
    (python/cpython#86296): whoever was told to stop would then go on. This one does not.
    """
    async with asyncio.timeout(seconds):
        return await work
