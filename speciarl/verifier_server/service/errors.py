"""What the service says when it cannot do what it was asked."""

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from speciarl.verifier_server.service.reply import json_reply

SHOWN_PROBLEMS = 5
SHOWN_CHARS = 200


class ApiError(Exception):
    """A request that is answered with an error."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        details: Sequence[Mapping[str, Any]] = (),
        retry_after_s: float | None = None,
    ) -> None:
        """`code` is for programs and stable, `message` one line for people, `details` one entry per problem."""
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.details = details
        self.retry_after_s = retry_after_s

    def reply(self) -> Response:
        """The HTTP response."""
        headers = {} if self.retry_after_s is None else {"Retry-After": f"{self.retry_after_s:.0f}"}
        error: dict[str, Any] = {"code": self.code, "message": self.message, "details": list(self.details)}
        return json_reply({"error": error}, self.status, headers)


def install(app: FastAPI) -> None:
    """Give every error of the app the one shape."""

    async def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, ApiError)
        return error.reply()

    async def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        # The input is not repeated: it may be long, and it is the client's business.
        problems = [
            {"where": ".".join(map(str, problem["loc"]))[:SHOWN_CHARS], "message": str(problem["msg"])[:SHOWN_CHARS]}
            for problem in error.errors()
        ]
        first = problems[0]
        message = f"{first['where']}: {first['message']}" + (f" (and {len(problems) - 1} more)" if problems[1:] else "")
        return ApiError(422, "invalid_request", message, problems[:SHOWN_PROBLEMS]).reply()

    async def plain(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        codes = {400: "bad_request", 404: "not_found", 405: "method_not_allowed"}
        reply = ApiError(error.status_code, codes.get(error.status_code, "http_error"), str(error.detail)).reply()
        reply.headers.update(error.headers or {})
        return reply

    async def unexpected(_: Request, __: Exception) -> Response:
        return ApiError(500, "internal", "the service failed; its log says why").reply()

    app.add_exception_handler(ApiError, refused)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, plain)
    app.add_exception_handler(Exception, unexpected)
