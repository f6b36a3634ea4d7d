"""Error body: what a server says of a failed request, wherever in its reply it says so, and what to do about it."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import orjson

from speciarl.utils.credentials import public_url

WRONG_ADDRESS = frozenset({404, 405})
"""Codes whose message names the URL that was asked, since that is what is wrong."""
_TUNABLE = (
    "max_tokens", "max_completion_tokens", "temperature", "top_logprobs", "logprobs", "response_format", "structured",
)  # fmt: skip
"""Fields of ours that some servers refuse."""
_NO_ROUTE = re.compile(r"\b(unexpected|unknown|invalid|no such) (endpoint|route|path|url)\b", re.IGNORECASE)
"""What a server says of a wrong path, whatever its status."""
_NAMED = re.compile(r"\b(model|judge|deployment)", re.IGNORECASE)
"""What a server says that knows the route and not the name."""


def retry_after_seconds(header: str | None, now: datetime) -> float | None:
    """Seconds in a Retry-After header (a number or an HTTP date, RFC 9110 10.2.3), >= 0; None if absent or
    unreadable."""
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max((moment - now).total_seconds(), 0.0)


def error_of(parsed: object) -> object:
    """The error in a parsed body: under `error`, in the first choice, as gateways pass on what their provider said, or
    the body itself where it calls itself one or has an HTTP status for its code; any of them may be the one entry of a
    list. None where there is none."""
    if isinstance(parsed, list) and len(parsed) == 1:
        parsed = parsed[0]
    if not isinstance(parsed, Mapping):
        return None
    code = parsed.get("code")
    if parsed.get("object") == "error" or (isinstance(code, int) and 400 <= code < 600 and "choices" not in parsed):
        return parsed
    choices = parsed.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return parsed.get("error") or (first.get("error") if isinstance(first, Mapping) else None)


def error_status(parsed: object) -> int | None:
    """The HTTP status that an error inside a reply of status 200 should have had; None where there is no error."""
    error = error_of(parsed)
    if not error:
        return None
    codes = [error.get(key) for key in ("code", "status", "status_code")] if isinstance(error, Mapping) else []
    numbers = (int(code) for code in codes if isinstance(code, int) or (isinstance(code, str) and code.isdecimal()))
    if "rate_limit_exceeded" in codes:
        return 429
    said = error.get("message") if isinstance(error, Mapping) else error
    if isinstance(said, str) and _NO_ROUTE.search(said):
        return 404
    return next((number for number in numbers if 400 <= number < 600), 500)


def error_message(content: bytes) -> str:
    """The message of an OpenAI-style error body, or the body."""
    text = content[:2000].decode("utf-8", "replace")
    try:
        parsed = orjson.loads(content)
    except orjson.JSONDecodeError:
        return text
    error = error_of(parsed) or parsed
    if isinstance(error, str):
        return error
    said = [error.get(key) for key in ("message", "detail", "msg")] if isinstance(error, Mapping) else []
    return next((message for message in said if isinstance(message, str) and message), text)


def advice(status: int, said: str, location: str | None, setting: str) -> str:
    """What to do about a status, to follow its message; empty where nothing is known. `setting`: what holds the URL."""
    if 300 <= status < 400:
        return f"; it leads to {public_url(location)}: set that in `{setting}`" if location else ""
    if status in (401, 403):
        return "; check `api_key_file`"
    if status in WRONG_ADDRESS:
        # The same status tells of a wrong path and of a model, or judge, that is not there.
        return "" if _NAMED.search(said) else f"; correct the path in `{setting}`"
    if status in (400, 422) and any(field in said for field in _TUNABLE):
        example = "{max_tokens: null, max_completion_tokens: 64}"
        return f"; leave out or rename the field with `request_fields`, e.g. {example}"
    return ""
