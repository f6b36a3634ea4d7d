"""Generation of missing answers: a bounded window of requests, each answer kept before its place is free."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from speciarl.evaluation.predict.answer import Failure, QuestionFailed
from speciarl.evaluation.predict.answer_store import AnswerStore, Keyed
from speciarl.evaluation.predict.engine import Engine
from speciarl.evaluation.predict.question import Question
from speciarl.evaluation.predict.sampling import Sampling

if TYPE_CHECKING:
    from PIL.Image import Image


_DECODERS = 4
"""Threads that decode images: more than an engine waits for, few enough not to crowd its own."""


@dataclass(frozen=True, slots=True)
class Missing:
    """A question and the consecutive seeds for which it has no answer yet; one None where greedy."""

    question: Question
    prompt: bytes
    """Hash of its prompt."""
    images: bytes
    """Hash of its images."""
    seeds: tuple[int | None, ...]


@dataclass
class Generated:
    """What became of the missing answers."""

    made: int = 0
    failures: dict[str, QuestionFailed] = field(default_factory=dict)
    """By sample id; of several failures of a question the first."""


async def generate(
    missing: Iterable[Missing],
    engine: Engine,
    sampling: Sampling,
    store: AnswerStore,
    window: int,
    progress: Callable[[int, int], None] = lambda made, failed: None,
) -> Generated:
    """Make the missing answers and keep them.

    At most `window` answers are under way or not yet durable, which is what a killed process loses. `progress` is told
    of answers made and questions failed, as they come. Raises what the engine raises when it dies, and OSError for a
    full disk; what was made is kept.
    """
    outcome = Generated()
    slots = asyncio.Semaphore(window)
    waiting: list[Keyed] = []
    more = asyncio.Event()

    async def ask(one: Missing) -> None:
        try:
            images = await loop.run_in_executor(decoders, _decoded, one.question)
            answers = await engine.answer(one.question, images, sampling, one.seeds)
        except QuestionFailed as failure:
            outcome.failures.setdefault(one.question.label.sample_id, failure)
            progress(0, 1)
            _release(slots, len(one.seeds))
        else:
            waiting.extend((one.prompt, one.images, answer) for answer in answers)
            more.set()

    async def write(disk: Executor) -> None:
        """Write whatever waits in one transaction; only then its places in the window are free."""
        while True:
            await more.wait()
            more.clear()
            batch = list(waiting)
            await loop.run_in_executor(disk, store.add, batch)
            del waiting[: len(batch)]  # now, so that a cancellation loses none: adding twice does no harm
            if not batch:
                continue
            outcome.made += len(batch)
            progress(len(batch), 0)
            _release(slots, len(batch))

    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1) as disk, ThreadPoolExecutor(_DECODERS) as decoders:
        try:
            async with asyncio.TaskGroup() as group:
                writing = group.create_task(write(disk))
                for one in _parts(missing, window if engine.together else 1):
                    await _acquire(slots, len(one.seeds))
                    group.create_task(ask(one))
                await _acquire(slots, window)  # all places are free: everything is durable, or failed
                writing.cancel()
        except BaseExceptionGroup as several:
            raise _first(several) from several
        finally:
            # Of an engine that died, or after Ctrl-C; the one thread does it after what it is at.
            if waiting and not _failed(writing):
                disk.submit(store.add, waiting).result()
    return outcome


def _parts(missing: Iterable[Missing], most: int) -> Iterator[Missing]:
    """The same with at most so many seeds at once."""
    for one in missing:
        for start in range(0, len(one.seeds), most):
            yield Missing(one.question, one.prompt, one.images, one.seeds[start : start + most])


def runs(seeds: Sequence[int | None]) -> list[tuple[int | None, ...]]:
    """Ascending seeds in runs of consecutive ones, since one request draws with s, s + 1, …"""
    found: list[list[int | None]] = []
    for seed in seeds:
        last = found[-1][-1] if found else None
        if seed is not None and last is not None and seed == last + 1:
            found[-1].append(seed)
        else:
            found.append([seed])
    return [tuple(run) for run in found]


async def _acquire(slots: asyncio.Semaphore, count: int) -> None:
    for _ in range(count):
        await slots.acquire()


def _release(slots: asyncio.Semaphore, count: int) -> None:
    for _ in range(count):
        slots.release()


def _failed(task: asyncio.Task[None]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is not None


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first of the errors that came together, which is what a person can act on."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _decoded(question: Question) -> list[Image]:
    from data_prep.images.encode import BrokenImageError, upright

    decoded: list[Image] = []
    for index, data in enumerate(question.images):
        try:
            decoded.append(upright(data))
        except BrokenImageError as error:
            raise QuestionFailed(Failure.BROKEN_IMAGE, f"image {index} {error}") from error
    return decoded
