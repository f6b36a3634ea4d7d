"""Request batches: pairs read from a request, judged, and cancelled when the client goes away."""

import asyncio
import json
import re
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import orjson
from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import ValidationError

from speciarl.utils.text import shorten
from speciarl.verdict import Judgement, Pair, Reason, Unscorable
from speciarl.verifier_server.service.schemas import PairItem
from speciarl.verifier_server.verifier import Verifier


@dataclass(frozen=True, slots=True)
class UnusablePair(Pair):
    """Pair that was sent but cannot be judged. A text that is missing or invalid is empty here."""

    why: Unscorable


def read_items(items: Sequence[object]) -> tuple[list[Pair], list[str | None]]:
    """The pairs, equal ones as one object, and their ids; of an unusable pair, the parts that are valid."""
    pairs: dict[tuple[str, str], Pair] = {}
    read: list[Pair] = []
    ids: list[str | None] = []
    pair: Pair
    for item in items:
        try:
            sent = item if isinstance(item, PairItem) else PairItem.model_validate(item)
        except ValidationError as error:
            pair, pair_id = _unusable(item, error)
        else:
            texts, pair_id = (sent.ground_truth, sent.prediction), sent.id
            pair = pairs.get(texts) or pairs.setdefault(texts, Pair(*texts))
        read.append(pair)
        ids.append(pair_id)
    return read, ids


def shared(texts: Iterable[tuple[str, str]]) -> list[Pair]:
    """Pairs of ground truths and predictions, in order; equal ones are one object."""
    rows = list(texts)
    pairs = {row: Pair(*row) for row in dict.fromkeys(rows)}
    return [pairs[row] for row in rows]


def _unusable(item: object, error: ValidationError) -> tuple[UnusablePair, str | None]:
    problems = error.errors(include_url=False, include_input=False)
    first = problems[0]
    where = ".".join(map(str, first["loc"])) or "pair"
    reason = Reason.TOO_LONG if first["type"] == "string_too_long" else Reason.MALFORMED
    what = "a lone surrogate, which is no character" if first["type"] == "string_unicode" else first["msg"]
    why = Unscorable(reason, f"{shorten(where)}: {what}")
    wrong = {problem["loc"][:1] for problem in problems}  # an empty place is the item itself
    sound = item if isinstance(item, Mapping) and () not in wrong else {}
    truth, prediction, pair_id = (
        sound.get(name) if (name,) not in wrong else None for name in ("ground_truth", "prediction", "id")
    )
    return UnusablePair(truth or "", prediction or "", why), pair_id


_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
"""JSON escape of a surrogate, half a character, whether or not its other half follows."""


def json_reply(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON response of plain data."""
    return Response(orjson.dumps(content), status, headers, media_type="application/json")


class _StrictRequest(Request):
    async def json(self) -> Any:
        return parse_body(await self.body())


def parse_body(body: bytes) -> Any:
    """The parsed JSON; raises JSONDecodeError.

    A lone surrogate does not make the whole body invalid, as for orjson; it is left to what takes the string.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        if _SURROGATE.search(body) is None:
            raise
        try:
            return json.loads(body.decode(), parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            pass  # orjson's error is raised instead
        raise


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


class StrictRoute(APIRoute):
    """Route whose body must be strict JSON: no NaN, no excessive nesting."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, with a body read by `parse_body`."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await handler(_StrictRequest(request.scope, request.receive))

        return handle


T = TypeVar("T")

_TURN = 64
"""Pairs after which other tasks of the event loop get a turn."""


class ClientGone(Exception):
    """The client went away before its answer was ready."""


Late = dict[Pair, asyncio.Task[Judgement]]
"""Pairs of one judge that missed a request's deadline and go on being judged, until the judge's own deadline."""


async def judge_pairs(
    verifier: Verifier, pairs: Sequence[Pair], string_chars: int, late: Late, deadline_s: float | None = None
) -> list[Judgement]:
    """Judge all pairs concurrently; returns one judgement per pair, in order.

    An unusable pair, one with a text beyond `string_chars` and one without a verdict after `deadline_s` are
    unscorable. The last go on being judged, in `late`, so that the next request for them joins. A caller that is
    cancelled leaves its pairs, late ones included; those that others wait for go on.
    Most pairs of a batch of rollouts repeat and are known: a pair that `shared` made one object is looked up once.
    """
    distinct = {id(pair): pair for pair in pairs}
    known: dict[int, Judgement | None] = {}
    for number, (key, times) in enumerate(Counter(map(id, pairs)).items()):
        pair = distinct[key]
        flaw = pair.why if isinstance(pair, UnusablePair) else _too_long(pair, string_chars)
        known[key] = flaw or verifier.recall(pair, times)
        if number % _TURN == _TURN - 1:
            await asyncio.sleep(0)  # lets other tasks run during a large batch
    judgements = [known[id(pair)] for pair in pairs]
    asked = {index: pairs[index] for index, judgement in enumerate(judgements) if judgement is None}
    judged = await _judge_unknown(verifier, asked, late, deadline_s) if asked else {}
    return [judged[index] if judgement is None else judgement for index, judgement in enumerate(judgements)]


async def _judge_unknown(
    verifier: Verifier, pairs: Mapping[int, Pair], late: Late, deadline_s: float | None
) -> dict[int, Judgement]:
    """The judgements of pairs that are not known, by the same indices."""
    tasks: dict[int, asyncio.Task[Judgement]] = {}
    judgements: dict[int, Judgement] = {}
    clock = asyncio.get_running_loop().time
    expires = None if deadline_s is None else clock() + deadline_s
    to_cancel = tasks  # all of them, until the late ones are kept
    try:
        for index, pair in pairs.items():
            tasks[index] = asyncio.create_task(verifier.verify(pair))
            if len(tasks) % _TURN == 0:
                await asyncio.sleep(0)
        await asyncio.wait(tasks.values(), timeout=None if expires is None else max(expires - clock(), 0))
        to_cancel = {index: task for index, task in tasks.items() if not _keep_late(late, pairs[index], task)}
        for index, task in tasks.items():
            timeout = Unscorable(Reason.TIMEOUT, f"no verdict within the request's deadline_s={deadline_s}")
            judgements[index] = task.result() if task.done() else timeout
    except asyncio.CancelledError:
        # The client went away. A late task is one more caller of its pair, which would otherwise be judged for nobody.
        for pair in pairs.values():
            if pair in late:
                late[pair].cancel()
        raise
    finally:
        for task in to_cancel.values():
            task.cancel()
        await asyncio.gather(*to_cancel.values(), return_exceptions=True)
    return judgements


def _keep_late(late: Late, pair: Pair, task: "asyncio.Task[Judgement]") -> bool:
    """Add an unfinished task to `late`, unless its pair has one there; returns whether it was added."""
    if task.done() or pair in late:
        return False
    late[pair] = task
    task.add_done_callback(lambda _: late.pop(pair))
    return True


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


def _too_long(pair: Pair, limit: int) -> Unscorable | None:
    for name, text in (("ground truth", pair.ground_truth), ("prediction", pair.prediction)):
        if len(text) > limit:
            detail = f"{name} of {len(text)} characters; the service takes {limit} (limits.string_chars)"
            return Unscorable(Reason.TOO_LONG, detail)
    return None
