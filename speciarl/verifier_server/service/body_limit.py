"""Bodies are read whole before anything looks at them, up to a length and within a time."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from speciarl.verifier_server.deadline import within
from speciarl.verifier_server.service.errors import ApiError


class BodyLimit:
    """Answers 413 to a body that is too long and 408 to one that takes too long."""

    def __init__(self, app: ASGIApp, most_bytes: int, deadline_s: float) -> None:
        self._app = app
        self._most = most_bytes
        self._deadline_s = deadline_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
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
