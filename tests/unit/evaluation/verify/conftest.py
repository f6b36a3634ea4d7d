"""Fixtures of the verify stage."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from speciarl.verifier_server.judge.prompt import load_prompt


@pytest.fixture
def server(fake_judge: Callable[[], Any]) -> Iterator[Any]:
    """A fake judge server on a loop of its own, since the stage brings its own."""
    server = fake_judge()
    server.answers = {golden.pair.prediction: min(golden.expected).label for golden in load_prompt("base").golden}
    server.answers |= {"cat": "less specific", "animal": "generic"}
    ready, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with server.running():
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(10)
    yield server
    loop.call_soon_threadsafe(stop.set)
    thread.join(10)
    loop.close()
