"""State routes: liveness, readiness and metrics."""

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from speciarl.verifier_server.service.errors import RETRY_AFTER, responses
from speciarl.verifier_server.service.judges import RETRY_STARTING_S
from speciarl.verifier_server.service.schemas import HealthResponse, ReadyResponse
from speciarl.verifier_server.service.service import Core


def open_router(core: Core) -> APIRouter:
    """Router of the state routes that need no key (see `middleware.OPEN_ROUTES`)."""
    routes = APIRouter(tags=["state"])

    @routes.get("/health", summary="The process answers")
    async def health() -> HealthResponse:
        """Liveness of the process, whatever the state of the judges. Needs no key."""
        return HealthResponse(status="ok")

    @routes.get(
        "/ready",
        summary="All judges can be asked",
        responses={503: {"model": ReadyResponse, "description": "Some judge is not ready.", "headers": RETRY_AFTER}},
    )
    async def ready(response: Response) -> ReadyResponse:
        """Readiness: the state of every judge; 503 until all are ready. Needs no key."""
        if not core.judges.ready:
            response.status_code = 503
            response.headers["Retry-After"] = f"{RETRY_STARTING_S:.0f}"
        return ReadyResponse(ready=core.judges.ready, judges={judge.name: judge.state for judge in core.judges.all()})

    return routes


def router(core: Core) -> APIRouter:
    """Router of the state routes that need the key, if there is one."""
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
