"""Run routes: list of the runs, statistics and pairs of a run."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from speciarl.verifier_server.service.config import RUN_CHARS
from speciarl.verifier_server.service.errors import responses
from speciarl.verifier_server.service.requests import StrictRoute, json_reply
from speciarl.verifier_server.service.runs.registry import CURSOR, RunRegistry
from speciarl.verifier_server.service.runs.schemas import RowsResponse, RunInfo, RunsResponse

Run = Annotated[str, Path(max_length=RUN_CHARS, description="Name of the run.", examples=["cub200-seed42"])]
After = Annotated[
    str | None,
    Query(max_length=64, description="`next` of the page before.", json_schema_extra={"pattern": f"^{CURSOR}$"}),
]


def router(registry: RunRegistry) -> APIRouter:
    """Router of the run routes of one service."""
    routes = APIRouter(prefix="/v1/runs", tags=["runs"], route_class=StrictRoute)

    @routes.get("", summary="List the runs", responses=responses("internal"))
    async def runs() -> RunsResponse:
        """Every run with its statistics."""
        return RunsResponse(runs=[registry.info(name) for name in registry.names()])

    @routes.get(
        "/{run}",
        summary="Statistics of a run",
        responses=responses("unknown_run", "invalid_request", "internal"),
    )
    async def run_info(run: Run) -> RunInfo:
        """Pairs so far, by category, source and reason."""
        return registry.info(run)

    @routes.get(
        "/{run}/results",
        summary="Pairs of a run",
        response_model=RowsResponse,
        responses=responses("unknown_run", "no_log", "part_gone", "invalid_request", "bad_cursor", "internal"),
    )
    async def results(
        run: Run,
        after: After = None,
        limit: Annotated[int, Query(ge=1, le=10_000, description="Most rows in the page.")] = 100,
    ) -> Response:
        """A page of the verdict log, including rows that are not written to disk yet."""
        return json_reply(await registry.rows(run, after, limit))

    return routes
