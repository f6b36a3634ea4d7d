"""Middleware: key, size of bodies, and one log line per request that never says what was in it."""

import hmac
import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from speciarl.utils.deadline import within
from speciarl.verifier_server.service.errors import ApiError
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
            self._record(scope, status, time.perf_counter() - begun)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        # The path as it was declared: a path as it was sent could make the log and the metrics grow without end.
        route = getattr(scope.get("route"), "path", "other")
        state = scope.get("state", {})
        pairs = state.get("pairs")
        self._metrics.request(route, status, seconds, pairs)
        level = logging.DEBUG if route in _QUIET else logging.INFO
        fields = {"method": scope["method"], "route": route, "status": status, "seconds": round(seconds, 6)}
        fields |= {name: state[name] for name in ("pairs", "judge", "run") if state.get(name) is not None}
        _log.log(level, "%s %s %d", scope["method"], route, status, extra={"fields": fields})


OPEN_ROUTES = frozenset({"/health", "/ready"})
"""Routes that need no key, so that whatever watches the service need not hold it."""


class BearerKey:
    """Lets requests in that carry the key, before anything of their body is read."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._key = key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        # Whoever mounts the service below a path, such as Ray Serve, leaves that in front of ours.
        path = scope.get("path", "").removeprefix(scope.get("root_path", ""))
        if scope["type"] != "http" or path in OPEN_ROUTES or self._holds_key(scope):
            await self._app(scope, receive, send)
            return
        reply = ApiError(401, "unauthorized", "send the key as `Authorization: Bearer KEY`").reply()
        reply.headers["WWW-Authenticate"] = "Bearer"
        await reply(scope, receive, send)

    def _holds_key(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(given) != 1:
            return False
        scheme, _, key = given[0].partition(b" ")
        # Takes as long for a nearly right key as for a wrong one.
        return hmac.compare_digest(key.strip(), self._key) and scheme.lower() == b"bearer"


class BodyLimit:
    """Answers 413 to a body that is too long and 408 to one that takes too long. What comes with a GET is not read."""

    def __init__(self, app: ASGIApp, most_bytes: int, deadline_s: float) -> None:
        self._app = app
        self._most = most_bytes
        self._deadline_s = deadline_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http" or scope["method"] == "GET":
            await self._app(scope, receive, send)
            return
        try:
            body = await within(self._deadline_s, self._read(scope, receive))
        except TimeoutError:
            await _refuse(
                ApiError(408, "body_too_slow", f"the body did not arrive within {self._deadline_s:g} s"), scope, send
            )
        except ApiError as error:
            await _refuse(error, scope, send)
        else:
            if body is not None:
                await self._app(scope, _replayed(body, receive), send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        """The body; None when the client went away. Raises ApiError."""
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        self._check(int(declared[:19]) if declared.isdigit() else 0)
        chunks = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            chunks += message.get("body", b"")
            self._check(len(chunks))
            if not message.get("more_body", False):
                return bytes(chunks)

    def _check(self, length: int) -> None:
        if length > self._most:
            raise ApiError(
                413, "body_too_long", f"the body is longer than limits.body_bytes={self._most}; send fewer pairs"
            )


def _replayed(body: bytes, receive: Receive) -> Receive:
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay


async def _refuse(error: ApiError, scope: Scope, send: Send) -> None:
    reply = error.reply()
    reply.headers["Connection"] = "close"  # the rest of the body is not wanted

    async def nothing() -> Message:
        return {"type": "http.disconnect"}

    await reply(scope, nothing, send)
