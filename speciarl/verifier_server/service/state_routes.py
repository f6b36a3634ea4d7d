"""State routes: alive, ready, metrics."""

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from speciarl.verifier_server.service.errors import responses
from speciarl.verifier_server.service.judges import RETRY_STARTING_S
from speciarl.verifier_server.service.requests import json_reply
from speciarl.verifier_server.service.schemas import HealthResponse, ReadyResponse
from speciarl.verifier_server.service.service import Core


def open_router(core: Core) -> APIRouter:
    """The routes of one service that need no key (see `auth.OPEN_ROUTES`)."""
    routes = APIRouter(tags=["state"])

    @routes.get("/health", summary="The process answers", response_model=HealthResponse)
    async def health() -> Response:
        """Says nothing about the judges. Needs no key."""
        return json_reply({"status": "ok"})

    @routes.get(
        "/ready",
        summary="All judges can be asked",
        response_model=ReadyResponse,
        responses={503: {"model": ReadyResponse, "description": "Some judge is not ready."}},
    )
    async def ready() -> Response:
        """State of every judge; 503 until all are ready. Needs no key."""
        states = {judge.name: judge.state for judge in core.judges.all()}
        if core.judges.ready:
            return json_reply({"ready": True, "judges": states})
        return json_reply({"ready": False, "judges": states}, 503, {"Retry-After": f"{RETRY_STARTING_S:.0f}"})

    return routes


def router(core: Core) -> APIRouter:
    """The others."""
    routes = APIRouter(tags=["state"])
    page = {"description": "The page.", "content": {CONTENT_TYPE_LATEST: {"schema": {"type": "string"}}}}

    @routes.get(
        "/metrics",
        summary="Prometheus metrics",
        response_class=Response,
        responses={200: page, **responses("internal")},
    )
    async def metrics() -> Response:
        """Counters of every judge, state of every server, and the service's own work."""
        return Response(core.metrics.page(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return routes
