"""Judge routes: the typed API, to judge pairs and to list the judges."""

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request, Response

from speciarl.verdict import Judgement, Verdict
from speciarl.verifier_server.service.errors import JUDGING, responses
from speciarl.verifier_server.service.judges import Judge
from speciarl.verifier_server.service.requests import StrictRoute, json_reply, read_items
from speciarl.verifier_server.service.schemas import JudgeInfo, JudgeRequest, JudgeResponse, JudgesResponse
from speciarl.verifier_server.service.service import Core
from speciarl.wire import to_wire


def router(core: Core) -> APIRouter:
    """Router of the judge routes of one service."""
    routes = APIRouter(prefix="/v1", tags=["judge"], route_class=StrictRoute)

    @routes.post(
        "/judge", summary="Judge a batch of pairs", response_model=JudgeResponse, responses=responses(*JUDGING)
    )
    async def judge(body: JudgeRequest, request: Request) -> Response:
        """One result per pair, in order: a verdict, or unscorable with a reason. A bad pair never fails the
        others."""
        name = body.judge or core.settings.judge
        pairs, ids = read_items(body.pairs)
        judgements = await core.judge(request, name, pairs, body.run, ids, deadline_s=body.deadline_s)
        results = _results(judgements, ids)
        judged = sum(isinstance(judgement, Verdict) for judgement in judgements)
        counts = {"judged": judged, "unscorable": len(judgements) - judged}
        return json_reply({"judge": name, "run": body.run, "results": results, **counts})

    @routes.get("/judges", summary="List the judges", responses=responses("internal"))
    async def judges() -> JudgesResponse:
        """Judges with their models and prompts, the names that clients may send, and the limits."""
        settings = core.settings
        return JudgesResponse(
            judges=[_describe(judge) for judge in core.judges.all()],
            default_judge=settings.judge,
            default_binary_judge=settings.binary_judge,
            aliases=list(settings.aliases),
            limits=settings.limits,
        )

    return routes


def _results(judgements: Sequence[Judgement], ids: Sequence[str | None]) -> list[dict[str, Any]]:
    """Each judgement as plain data; one that equal pairs share is converted once."""
    written: dict[int, dict[str, Any]] = {}
    results = []
    for judgement, pair_id in zip(judgements, ids, strict=True):
        result = written.get(id(judgement))
        if result is None:
            result = written[id(judgement)] = to_wire(judgement)
        results.append(result if pair_id is None else result | {"id": pair_id})
    return results


def _describe(judge: Judge) -> JudgeInfo:
    config = judge.config
    return JudgeInfo(
        name=judge.name,
        state=judge.state,
        kind=config.kind,
        model=config.model,
        revision=config.revision,
        prompt=judge.prompt,
        prompt_hash=judge.prompt_hash,
        decoding=judge.decoding,
        thinking=config.thinking,
        max_string_chars=config.max_string_chars,
        endpoints=judge.endpoints,
    )
