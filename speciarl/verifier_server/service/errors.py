"""API errors: status, code and message of every failure that a client may see."""

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from speciarl.verifier_server.service.requests import json_reply
from speciarl.verifier_server.service.schemas import ErrorBody, ErrorResponse

SHOWN_PROBLEMS = 5
SHOWN_CHARS = 200

CODES: Mapping[tuple[int, str], str] = {
    (400, "bad_request"): "this is no request",
    (401, "unauthorized"): "the key is missing or wrong",
    (404, "not_found"): "there is no such route",
    (404, "unknown_judge"): "there is no such judge",
    (404, "unknown_run"): "there is no such run",
    (405, "method_not_allowed"): "the route takes another method",
    (408, "body_too_slow"): "the body did not arrive in time",
    (409, "no_log"): "the service keeps no rows",
    (409, "too_many_runs"): "the service keeps no more runs",
    (410, "part_gone"): "a file of the log was removed",
    (413, "body_too_long"): "the body is too long",
    (413, "too_many_pairs"): "there are too many pairs",
    (422, "bad_cursor"): "`after` is no cursor",
    (422, "invalid_request"): "the message names what is malformed",
    (422, "unscorable"): "a pair has no verdict, and trying again will not help",
    (429, "overloaded"): "too many pairs are being judged; see Retry-After",
    (500, "internal"): "the service failed",
    (502, "unscorable"): "the judge gave no usable verdict",
    (503, "judge_failed"): "the judge could not start",
    (503, "judge_starting"): "the judge is not ready yet; see Retry-After",
    (503, "judge_stopped"): "the judge was stopped",
    (503, "log_full"): "the verdict log takes no rows; see Retry-After",
    (503, "stopping"): "the service is stopping; see Retry-After",
    (503, "unscorable"): "the judge is out of reach or too slow; see Retry-After",
}
"""All errors by status and code, with their meaning."""

JUDGING = (
    *("body_too_slow", "body_too_long", "too_many_pairs", "invalid_request", "unknown_judge", "too_many_runs"),
    *("overloaded", "judge_starting", "judge_failed", "judge_stopped", "log_full", "stopping", "internal"),
)
"""Error codes of every route that judges."""

RETRY_AFTER = {
    "Retry-After": {"description": "Seconds to wait.", "required": True, "schema": {"type": "integer", "minimum": 1}}
}
_CHALLENGE = {"WWW-Authenticate": {"description": "`Bearer`.", "required": True, "schema": {"const": "Bearer"}}}
_HEADERS = {401: _CHALLENGE, 429: RETRY_AFTER, 503: RETRY_AFTER}


def responses(*codes: str) -> dict[int | str, dict[str, Any]]:
    """Error responses of a route, by status, for the OpenAPI document."""
    described: dict[int | str, dict[str, Any]] = {}
    for status in dict.fromkeys(status for status, code in CODES if code in codes):
        texts = {code: text for (other, code), text in CODES.items() if other == status and code in codes}
        described[status] = {
            "model": ErrorResponse,
            "description": "; ".join(f"`{code}`: {text}" for code, text in texts.items()),
            "content": {"application/json": {"schema": _with_code(list(texts))}},
            "headers": _HEADERS.get(status, {}),
        }
    return described


def _with_code(codes: list[str]) -> dict[str, Any]:
    """Schema that lists the possible codes; FastAPI adds the model, in which `code` is any text."""
    return {"properties": {"error": {"properties": {"code": {"enum": codes}}}}}


class ApiError(Exception):
    """Error that ends a request with an HTTP status, a code and a message."""

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
        error = ErrorBody(code=self.code, message=self.message, details=list(map(dict, self.details)))
        return json_reply(ErrorResponse(error=error).model_dump(), self.status, headers)


def install(app: FastAPI) -> None:
    """Install exception handlers that give every error of the app the shape of `ErrorResponse`."""

    async def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, ApiError)
        return error.reply()

    async def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        # The input is not repeated: it may be long, or confidential.
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
