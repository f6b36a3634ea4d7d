"""A batch of pairs through one judge."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from fastapi import Request

from speciarl.verdict import Judgement, Pair, Reason, Unscorable
from speciarl.verifier_server.protocol import Verifier
from speciarl.verifier_server.service.pair_items import UnusablePair

T = TypeVar("T")

_TURN = 64


class ClientGone(Exception):
    """Nobody waits for the answer any more."""


async def judge_pairs(
    verifier: Verifier, pairs: Sequence[Pair], string_chars: int, deadline_s: float | None = None
) -> list[Judgement]:
    """Judge all pairs at once; one judgement per pair, in their order.

    An unusable pair, one with a text beyond `string_chars` and one without a verdict after `deadline_s` are
    unscorable. When the caller is cancelled, so is its interest in the pairs; other callers' is not.
    """
    tasks: dict[int, asyncio.Task[Judgement]] = {}
    judgements: dict[int, Judgement] = {}
    clock = asyncio.get_running_loop().time
    expires = None if deadline_s is None else clock() + deadline_s
    try:
        for index, pair in enumerate(pairs):
            flaw = pair.why if isinstance(pair, UnusablePair) else _excess(pair, string_chars)
            if flaw is not None:
                judgements[index] = flaw
                continue
            tasks[index] = asyncio.create_task(verifier.verify(pair))
            if index % _TURN == _TURN - 1:
                await asyncio.sleep(0)  # others get their turn within a large batch
        if tasks:
            await asyncio.wait(tasks.values(), timeout=None if expires is None else max(expires - clock(), 0))
        for index, task in tasks.items():
            late = Unscorable(Reason.TIMEOUT, f"no verdict within the request's deadline_s={deadline_s}")
            judgements[index] = task.result() if task.done() else late
    finally:
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
    return [judgements[index] for index in range(len(pairs))]


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the client goes away; raises ClientGone then.

    The request's body must have been read.
    """
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientGone
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _excess(pair: Pair, limit: int) -> Unscorable | None:
    for name, text in (("ground truth", pair.ground_truth), ("prediction", pair.prediction)):
        if len(text) > limit:
            detail = f"{name} of {len(text)} characters; the service takes {limit} (limits.string_chars)"
            return Unscorable(Reason.TOO_LONG, detail)
    return None
