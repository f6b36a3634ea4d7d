"""One thread for calls that block, so that the event loop never does."""

import queue
import threading
from asyncio import wrap_future
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class BlockingThread:
    """Runs calls one after another, off the event loop.

    The thread is a daemon: a disk that hangs keeps no process from ending. (A pool of the standard library
    would be joined at exit.)
    """

    def __init__(self, name: str) -> None:
        """The thread starts with the first call."""
        self._name = name
        self._jobs: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def run(self, call: Callable[[], T]) -> T:
        """What the call returns or raises. When cancelled before its turn, the call is not made."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        job: Future[T] = Future()
        self._jobs.put((job, call))
        return await wrap_future(job)

    def stop(self) -> None:
        """Let the thread end after the calls that wait. Final."""
        self._jobs.put(None)

    def _work(self) -> None:
        while (entry := self._jobs.get()) is not None:
            job, call = entry
            if not job.set_running_or_notify_cancel():
                continue
            try:
                result = call()
            except BaseException as error:  # noqa: BLE001 - handed to whoever waits
                job.set_exception(error)
            else:
                job.set_result(result)
