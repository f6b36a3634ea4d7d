"""Compatible routes: the wire format of the paper's release, so that its clients work unchanged."""

from collections.abc import Sequence
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response

from speciarl.category import Category
from speciarl.verdict import Judgement, Reason, Unscorable, Verdict
from speciarl.verifier_server.service.config import ANY, BinaryConfig, ServiceConfig
from speciarl.verifier_server.service.errors import JUDGING, ApiError, responses
from speciarl.verifier_server.service.requests import StrictRoute, json_reply, shared
from speciarl.verifier_server.service.runs.registry import run_name
from speciarl.verifier_server.service.schemas import BinaryResponse, ClassifyRequest, ClassifyResponse
from speciarl.verifier_server.service.service import Core

SHOWN_ITEMS = 100
RETRY_AFTER_S = 5.0
_CLIENT_ERRORS = frozenset({Reason.TOO_LONG, Reason.UNKNOWN_CONCEPT})
_TRANSIENT = frozenset({Reason.TIMEOUT, Reason.CONNECTION, Reason.OVERLOADED, Reason.CANCELLED})


def router(core: Core) -> APIRouter:
    """Router of the compatible routes of one service."""
    routes = APIRouter(
        prefix="/api/v1/classify",
        tags=["compatible"],
        route_class=StrictRoute,
        responses=responses(*JUDGING, "unscorable"),
    )

    @routes.post("/standard", summary="Six labels, as in the paper's release", response_model=ClassifyResponse)
    async def standard(body: ClassifyRequest, request: Request) -> Response:
        """One label word per pair, in order. A pair without a verdict fails the request: there is no label for
        it."""
        verdicts = await _classify(core, body, request, binary=False)
        return json_reply({"classifications": [verdict.category.label for verdict in verdicts]})

    @routes.post("/binary", summary="Two labels, as in the paper's release", response_model=BinaryResponse)
    async def binary(body: ClassifyRequest, request: Request) -> Response:
        """The same with two label words, which the service's settings name."""
        verdicts = await _classify(core, body, request, binary=True)
        words = core.settings.binary
        return json_reply({"classifications": [binary_word(verdict.category, words) for verdict in verdicts]})

    return routes


def find_judge(settings: ServiceConfig, model: str | None, prompt: str | None, binary: bool) -> str:
    """Name of the judge for a client's model and prompt names; raises ApiError that lists the known ones."""
    if model is None and prompt is None:
        return settings.binary_judge if binary else settings.judge
    table = {names: alias.judge for alias in settings.aliases for names in alias.names}
    for wanted in (prompt, ANY):  # an exact name before the wildcard
        found = table.get((model, wanted, binary))
        if found is not None:
            return found
    if model is not None and model in settings.judges and prompt is None:
        return model
    known = [{"model": name, "verifier_prompt": None} for name in settings.judges]
    known += [{"model": name, "verifier_prompt": other} for name, other, is_binary in table if is_binary == binary]
    models, prompts = (
        ", ".join(dict.fromkeys(one[key] or "(none)" for one in known)) for key in ("model", "verifier_prompt")
    )
    message = f"no judge answers to these names; known models: {models}; known prompts: {prompts}"
    raise ApiError(404, "unknown_judge", f"{message}; `details` has those that go together", known)


def binary_word(category: Category, words: BinaryConfig) -> str:
    """The label word for a category where there are only two."""
    return words.right if category >= Category.from_label(words.least) else words.wrong


def spread(extra_info: Any, pairs: int) -> list[str | None]:
    """The JSON text of each pair's part of `extra_info`: a list has one for each pair, anything else is about all.

    Raises ApiError for a list of another length, and for what cannot be written as JSON: lone surrogates, excessive
    nesting.
    """
    if isinstance(extra_info, list) and len(extra_info) != pairs:
        message = f"body.extra_info: {len(extra_info)} entries for {pairs} pairs; send one for each, or no list"
        raise ApiError(422, "invalid_request", message)
    try:
        if isinstance(extra_info, list):
            return [None if entry is None else orjson.dumps(entry).decode() for entry in extra_info]
        return [None if extra_info is None else orjson.dumps(extra_info).decode()] * pairs
    except orjson.JSONEncodeError as error:
        raise ApiError(422, "invalid_request", f"body.extra_info: {error}") from error


async def _classify(core: Core, body: ClassifyRequest, request: Request, binary: bool) -> list[Verdict]:
    if len(body.ground_truths) != len(body.predictions):
        message = f"{len(body.ground_truths)} ground_truths, {len(body.predictions)} predictions; send as many of each"
        raise ApiError(422, "invalid_request", message)
    judge = find_judge(core.settings, body.model, body.verifier_prompt, binary)
    pairs = shared(zip(body.ground_truths, body.predictions, strict=True))
    run = None if body.run_name is None else run_name(body.run_name)
    extra_info = spread(body.extra_info, len(pairs))
    return _verdicts(await core.judge(request, judge, pairs, run, extra_info=extra_info))


def _verdicts(judgements: Sequence[Judgement]) -> list[Verdict]:
    """The judgements, if all are verdicts; raises ApiError otherwise."""
    failed = [(index, one) for index, one in enumerate(judgements) if isinstance(one, Unscorable)]
    if not failed:
        return [one for one in judgements if isinstance(one, Verdict)]
    reasons = {one.reason for _, one in failed}
    # 503 only when a retry may help every pair.
    transient = reasons <= _TRANSIENT
    status = 422 if reasons & _CLIENT_ERRORS else 503 if transient else 502
    details = [{"index": index, "reason": one.reason.value, "detail": one.detail} for index, one in failed]
    first = details[0]
    raise ApiError(
        status,
        "unscorable",
        f"{len(failed)} of {len(judgements)} pairs have no verdict; "
        f"pair {first['index']}: {first['reason']}: {first['detail']}",
        details[:SHOWN_ITEMS],
        retry_after_s=RETRY_AFTER_S if transient else None,
    )
