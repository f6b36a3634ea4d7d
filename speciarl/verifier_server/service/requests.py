"""Batches of pairs: read from a request, judged, broken off when the client goes away."""

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
    """What was sent as a pair and cannot be judged. A text that is none is empty here."""

    why: Unscorable


def read_items(items: Sequence[object]) -> tuple[list[Pair], list[str | None]]:
    """The pairs, equal ones one object, and their ids; of one that is unusable, as much as is sound."""
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
    """Pairs of truths and predictions, in their order; equal ones are one object."""
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
    wrong = {problem["loc"][:1] for problem in problems}
    sound = item if isinstance(item, Mapping) and () not in wrong else {}
    truth, prediction, pair_id = (
        sound.get(name) if (name,) not in wrong else None for name in ("ground_truth", "prediction", "id")
    )
    return UnusablePair(truth or "", prediction or "", why), pair_id


_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
"""The escape of half a character, whether or not its other half follows."""


def json_reply(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON response of plain data."""
    return Response(orjson.dumps(content), status, headers, media_type="application/json")


class _StrictRequest(Request):
    async def json(self) -> Any:
        return parse_body(await self.body())


def parse_body(body: bytes) -> Any:
    """The parsed JSON; raises JSONDecodeError.

    A lone surrogate is no fault of the whole body: it is left to whoever takes the string that holds it.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        if _SURROGATE.search(body) is None:
            raise
        try:
            return json.loads(body.decode(), parse_constant=_refuse)
        except (ValueError, RecursionError):
            pass  # what orjson said is as true
        raise


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


class StrictRoute(APIRoute):
    """A route whose body must be JSON by the letter: no NaN, no endless nesting."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, with our way of reading the body."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await handler(_StrictRequest(request.scope, request.receive))

        return handle


T = TypeVar("T")

_TURN = 64


class ClientGone(Exception):
    """Nobody waits for the answer any more."""


Late = dict[Pair, asyncio.Task[Judgement]]
"""Pairs of one judge that were late in an answer and go on being judged, until the judge's own deadline."""


async def judge_pairs(
    verifier: Verifier, pairs: Sequence[Pair], string_chars: int, late: Late, deadline_s: float | None = None
) -> list[Judgement]:
    """Judge all pairs at once; one judgement per pair, in their order.

    An unusable pair, one with a text beyond `string_chars` and one without a verdict after `deadline_s` are
    unscorable. The last go on being judged, in `late`, so that the next request for them joins. When the caller is
    cancelled, so is its interest in the pairs, late ones included; other callers' is not.
    Most of a batch of rollouts repeats itself and is known: a pair that `shared` made one object is looked up once.
    """
    distinct = {id(pair): pair for pair in pairs}
    known: dict[int, Judgement | None] = {}
    for number, (key, times) in enumerate(Counter(map(id, pairs)).items()):
        pair = distinct[key]
        flaw = pair.why if isinstance(pair, UnusablePair) else _excess(pair, string_chars)
        known[key] = flaw or verifier.recall(pair, times)
        if number % _TURN == _TURN - 1:
            await asyncio.sleep(0)  # others get their turn within a large batch
    judgements = [known[id(pair)] for pair in pairs]
    asked = {index: pairs[index] for index, judgement in enumerate(judgements) if judgement is None}
    judged = await _judge_unknown(verifier, asked, late, deadline_s) if asked else {}
    return [judged[index] if judgement is None else judgement for index, judgement in enumerate(judgements)]


async def _judge_unknown(
    verifier: Verifier, pairs: Mapping[int, Pair], late: Late, deadline_s: float | None
) -> dict[int, Judgement]:
    """The judgements of pairs by the same numbers."""
    tasks: dict[int, asyncio.Task[Judgement]] = {}
    judgements: dict[int, Judgement] = {}
    clock = asyncio.get_running_loop().time
    expires = None if deadline_s is None else clock() + deadline_s
    leaving = tasks
    try:
        for index, pair in pairs.items():
            tasks[index] = asyncio.create_task(verifier.verify(pair))
            if len(tasks) % _TURN == 0:
                await asyncio.sleep(0)
        await asyncio.wait(tasks.values(), timeout=None if expires is None else max(expires - clock(), 0))
        leaving = {index: task for index, task in tasks.items() if not _keep(late, pairs[index], task)}
        for index, task in tasks.items():
            timeout = Unscorable(Reason.TIMEOUT, f"no verdict within the request's deadline_s={deadline_s}")
            judgements[index] = task.result() if task.done() else timeout
    except asyncio.CancelledError:
        for pair in pairs.values():
            if pair in late:
                late[pair].cancel()
        raise
    finally:
        for task in leaving.values():
            task.cancel()
        await asyncio.gather(*leaving.values(), return_exceptions=True)
    return judgements


def _keep(late: Late, pair: Pair, task: "asyncio.Task[Judgement]") -> bool:
    """Keep an unfinished task as the pair's caller, where there is none yet; whether it is kept."""
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


def _excess(pair: Pair, limit: int) -> Unscorable | None:
    for name, text in (("ground truth", pair.ground_truth), ("prediction", pair.prediction)):
        if len(text) > limit:
            detail = f"{name} of {len(text)} characters; the service takes {limit} (limits.string_chars)"
            return Unscorable(Reason.TOO_LONG, detail)
    return None
