"""One line and one observation per request: what was asked and how it went, never what was in it."""

import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from speciarl.verifier_server.service.metrics import Metrics

GONE = 499
"""Status in the log of a request whose client went away."""

_QUIET = frozenset({"/health", "/ready", "/metrics"})
"""Routes that something asks for every few seconds."""

_log = logging.getLogger("speciarl.access")


class AccessLog:
    """Measures and logs every request. Handlers leave `pairs`, `judge` and `run` in the request's state."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()
        status = GONE

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except Exception:
            status = 500
            raise
        finally:
            self._note(scope, status, time.perf_counter() - begun)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        # The path as it was declared: a path as it was sent could make the log and the metrics grow without end.
        route = getattr(scope.get("route"), "path", "other")
        state = scope.get("state", {})
        pairs = state.get("pairs")
        self._metrics.request(route, status, seconds, pairs)
        level = logging.DEBUG if route in _QUIET else logging.INFO
        fields = {"method": scope["method"], "route": route, "status": status, "seconds": round(seconds, 6)}
        fields |= {name: state[name] for name in ("pairs", "judge", "run") if state.get(name) is not None}
        _log.log(level, "%s %s %d", scope["method"], route, status, extra={"fields": fields})
