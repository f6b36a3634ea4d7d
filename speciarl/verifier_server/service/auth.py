"""The bearer key."""

import hmac

from starlette.types import ASGIApp, Receive, Scope, Send

from speciarl.verifier_server.service.errors import ApiError

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
