"""ASGI middleware: bearer key, limits on bodies, and an access log that never holds the content of requests."""

import hmac
import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from speciarl.utils.deadline import within
from speciarl.verifier_server.service.errors import ApiError
from speciarl.verifier_server.service.metrics import Metrics

GONE = 499
"""Status in the access log of a request whose client went away, as in nginx."""

_QUIET = frozenset({"/health", "/ready", "/metrics"})
"""Routes that are polled every few seconds, logged at level DEBUG."""

_log = logging.getLogger("speciarl.access")


class AccessLog:
    """ASGI middleware that measures and logs every request. Handlers set `pairs`, `judge` and `run` in its state."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry point."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()
        status = GONE  # unless a response starts

        async def send_and_record(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, send_and_record)
        except Exception:
            status = 500
            raise
        finally:
            self._record(scope, status, time.perf_counter() - begun)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        # The path as declared: paths as sent could make the number of log lines and metrics grow without bound.
        route = getattr(scope.get("route"), "path", "other")
        state = scope.get("state", {})
        pairs = state.get("pairs")
        self._metrics.request(route, status, seconds, pairs)
        level = logging.DEBUG if route in _QUIET else logging.INFO
        fields = {"method": scope["method"], "route": route, "status": status, "seconds": round(seconds, 6)}
        fields |= {name: state[name] for name in ("pairs", "judge", "run") if state.get(name) is not None}
        _log.log(level, "%s %s %d", scope["method"], route, status, extra={"fields": fields})


OPEN_ROUTES = frozenset({"/health", "/ready"})
"""Routes that need no key, so that whatever checks liveness and readiness need not hold it."""


class BearerKey:
    """ASGI middleware that refuses requests without the key, before anything of their body is read."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._key = key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry point."""
        # A host that mounts the service below a path, such as Ray Serve, leaves that as a prefix of ours.
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
        # Constant time: how long it takes says nothing about the key.
        return hmac.compare_digest(key.strip(), self._key) and scheme.lower() == b"bearer"


class BodyLimit:
    """ASGI middleware: 413 for a body that is too long, 408 for one that takes too long. A GET's body is not read."""

    def __init__(self, app: ASGIApp, most_bytes: int, deadline_s: float) -> None:
        self._app = app
        self._most = most_bytes
        self._deadline_s = deadline_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry point."""
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
        self._check(int(declared[:19]) if declared.isdigit() else 0)  # cut: int() refuses thousands of digits
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
    """Channel that receives the body again, then what `receive` does."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay


async def _refuse(error: ApiError, scope: Scope, send: Send) -> None:
    reply = error.reply()
    reply.headers["Connection"] = "close"  # the rest of the body is not read

    async def nothing() -> Message:
        return {"type": "http.disconnect"}

    await reply(scope, nothing, send)
