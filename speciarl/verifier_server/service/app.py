"""ASGI application of the service, for uvicorn or any other ASGI server."""

import contextlib
import logging
from collections.abc import AsyncIterator

from fastapi import Depends, FastAPI, Request, Response
from fastapi.security import HTTPBearer

import speciarl
from speciarl.errors import SpeciaRLError
from speciarl.utils.credentials import read_key
from speciarl.verifier_server.factory import build
from speciarl.verifier_server.service import errors, state_routes
from speciarl.verifier_server.service import routes as judge_routes
from speciarl.verifier_server.service.compatible import classify, lists
from speciarl.verifier_server.service.compatible import runs as compatible_runs
from speciarl.verifier_server.service.config import ServiceConfig
from speciarl.verifier_server.service.judges import BuildVerifier, OnFailure
from speciarl.verifier_server.service.middleware import GONE, AccessLog, BearerKey, BodyLimit
from speciarl.verifier_server.service.requests import ClientGone
from speciarl.verifier_server.service.runs import routes as run_routes
from speciarl.verifier_server.service.service import Core

ABOUT = """Puts (ground truth, prediction) pairs into one of six ordered categories: `wrong`, `abstain`, `generic`,
`less specific`, `specific`, `more specific`. A pair without a verdict is *unscorable*, with a reason: never a category
and never a score of 0."""

_log = logging.getLogger(__name__)


def create_app(
    settings: ServiceConfig, on_failure: OnFailure | None = None, build_verifier: BuildVerifier = build
) -> FastAPI:
    """The ASGI application. It opens nothing before its lifespan begins, and reads only the key file.

    The judges start in the background; until they are ready, `/ready` and requests for them answer 503.
    `on_failure` is called with the error of each judge that cannot start, and of a verdict log that cannot; without it
    the first is logged and shown by `/v1/judges`, the second raised. `app.state.core` is the `Core` of the service.
    """
    core = Core(settings, build_verifier)
    key = read_key(settings.key_file, "service", "key_file") if settings.key_file else None

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            await core.start(on_failure or _log_failure)
        except SpeciaRLError as error:
            if on_failure is None:
                raise
            on_failure(error)
        try:
            yield
        finally:
            await core.stop()

    app = FastAPI(
        title="SpeciaRL verifier",
        version=speciarl.__version__,
        description=ABOUT,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    app.state.core = core
    errors.install(app)
    app.add_exception_handler(ClientGone, _client_gone)
    # `BearerKey` checks the key, before the body is read; here it is only declared for OpenAPI.
    keyed = [Depends(HTTPBearer(auto_error=False, description="The service's key."))] if key else []
    refused = errors.responses("unauthorized") if key else {}
    of_runs = [run_routes.router(core.runs), compatible_runs.router(core.runs)]
    judging = [judge_routes.router(core), classify.router(core), lists.router(core)]
    for routes in (*judging, *of_runs, state_routes.router(core)):
        app.include_router(routes, dependencies=keyed, responses=refused)
    app.include_router(state_routes.open_router(core))
    # The last one added runs first: log, key, body.
    app.add_middleware(BodyLimit, most_bytes=settings.limits.body_bytes, deadline_s=settings.limits.body_deadline_s)
    if key is not None:
        app.add_middleware(BearerKey, key=key)
    app.add_middleware(AccessLog, metrics=core.metrics)
    return app


def _log_failure(error: SpeciaRLError) -> None:
    _log.error("%s", error)


async def _client_gone(_: Request, __: Exception) -> Response:
    return Response(status_code=GONE)  # for the access log: the client is gone
