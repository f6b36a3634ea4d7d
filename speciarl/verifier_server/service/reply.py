"""JSON in and out, fast and strict."""

import json
import re
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, NoReturn

import orjson
from fastapi import Request, Response
from fastapi.routing import APIRoute

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
"""The escape of half a character, whether or not its other half follows."""


def json_reply(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON response of plain data."""
    return Response(orjson.dumps(content), status, headers, media_type="application/json")


class _StrictRequest(Request):
    async def json(self) -> Any:
        return parse_body(await self.body())


def parse_body(body: bytes) -> Any:
    """The parsed JSON; raises JSONDecodeError.

    A lone surrogate is no fault of the whole body: it is left to whoever takes the string that holds it.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        if _SURROGATE.search(body) is None:
            raise
        try:
            return json.loads(body.decode(), parse_constant=_refuse)
        except (ValueError, RecursionError):
            pass  # what orjson said is as true
        raise


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


class StrictRoute(APIRoute):
    """A route whose body must be JSON by the letter: no NaN, no endless nesting."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, with our way of reading the body."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await handler(_StrictRequest(request.scope, request.receive))

        return handle
