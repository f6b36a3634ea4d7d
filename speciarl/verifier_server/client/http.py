"""HTTP client of one OpenAI-compatible server: returns a parsed reply, or a Failure with its cause."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import orjson

from speciarl.utils.credentials import authorization, passwords, public_url
from speciarl.utils.deadline import within
from speciarl.utils.text import shorten
from speciarl.verdict import Reason, Unscorable

_TRANSIENT_STATUS = frozenset({408, 409, 425, 429})
"""Client-error codes that are transient; every other 4xx is final."""

_OVERLOADED_STATUS = frozenset({429, 503})
_JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Failure:
    """One request without a usable reply."""

    unscorable: Unscorable
    transient: bool
    """Whether another attempt may succeed (transient error)."""
    retry_after_s: float | None = None
    """Seconds for which the server asked not to be called (Retry-After)."""
    status: int | None = None
    """HTTP status, when there was one."""
    unsent: bool = False
    """Whether no connection could be made, so that the server never saw the request."""

    @property
    def busy(self) -> bool:
        """Whether the server replied that it is merely busy: HTTP 429, or any failure with Retry-After."""
        return self.status == 429 or self.retry_after_s is not None

    @property
    def independent_of_request(self) -> bool:
        """Whether the request cannot be the cause: it was never sent, or rejected for overload (HTTP 429 or 503)."""
        return self.unsent or self.unscorable.reason is Reason.OVERLOADED


class Client:
    """HTTP client of one server. The session is shared, and closed by its owner."""

    def __init__(
        self,
        url: str,
        kind: Literal["vllm", "openai"],
        session: aiohttp.ClientSession,
        timeout_s: float,
        api_key: str | None = None,
        model: str | None = None,
    ) -> None:
        """Requests carry the key, or user name and password of the URL. `model`: the one the server must serve; None
        where that is not checked."""
        self.url = public_url(url)
        """The URL for messages: without user name and password."""
        self.root, self.api = base_urls(self.url, kind)
        self._kind = kind
        self._session = session
        self._timeout_s = timeout_s
        self._model = model
        header = authorization(url, api_key)
        self._headers = _JSON | ({"Authorization": header} if header else {})
        self._secrets = passwords(url) | ({header.split()[1]} if header else set())

    async def chat(self, body: Mapping[str, Any]) -> object | Failure:
        """POST a chat completion; the parsed JSON, or Failure. Raises only CancelledError."""
        return await self._request("POST", f"{self.api}/chat/completions", body)

    async def chats(self, body: Mapping[str, Any]) -> object | Failure:
        """POST several conversations at once, a list of lists of messages, as only some servers take; see `chat`."""
        return await self._request("POST", f"{self.api}/chat/completions/batch", body)

    async def models(self) -> object | Failure:
        """GET the list of served models; the parsed JSON, or Failure."""
        return await self._request("GET", f"{self.api}/models")

    async def check_health(self, timeout_s: float) -> Failure | None:
        """Check that the server is up, as vLLM says on ``/health``, and that a list of its models holds ours: another
        server may be at the URL by now. None if so.

        Any reply but a server error (HTTP 5xx) will do, also that there is no such route: a request shows more.
        """
        routes = [f"{self.root}/health"] if self._kind == "vllm" else []
        if self._model is not None or not routes:
            routes.append(f"{self.api}/models")
        for route in routes:
            reply = await self._request("GET", route, timeout_s=timeout_s)
            if isinstance(reply, Failure) and (reply.status is None or reply.status >= 500):
                return reply
        problem = None if self._model is None or isinstance(reply, Failure) else missing_model(reply, self._model)
        if problem is None:
            return None
        return Failure(Unscorable(Reason.HTTP_ERROR, f"{self.url} {problem}"), transient=True)

    async def post_root(self, route: str, body: Mapping[str, Any]) -> object | Failure:
        """POST to a vLLM route outside the OpenAI API, such as ``tokenize``; the parsed JSON, or Failure."""
        return await self._request("POST", f"{self.root}/{route}", body)

    async def _request(
        self, method: str, url: str, body: Mapping[str, Any] | None = None, timeout_s: float | None = None
    ) -> object | Failure:
        limit_s = timeout_s or self._timeout_s
        try:
            return await within(limit_s, self._exchange(method, url, body))
        except TimeoutError:  # before OSError, its base class
            late = f"{self.url} gave no reply within {limit_s:g} s"
            return Failure(Unscorable(Reason.TIMEOUT, late), transient=True)
        except (aiohttp.ClientError, OSError) as error:
            # Bad certificates and malformed URLs are permanent; any other connection error may be transient.
            transient = not isinstance(error, aiohttp.ClientSSLError | aiohttp.InvalidURL)
            cause = shorten(self._without_secrets(str(error) or type(error).__name__), 200)
            unsent = isinstance(error, aiohttp.ClientConnectorError)
            return Failure(Unscorable(Reason.CONNECTION, f"{self.url}: {cause}"), transient=transient, unsent=unsent)

    async def _exchange(self, method: str, url: str, body: Mapping[str, Any] | None) -> object | Failure:
        data = None if body is None else orjson.dumps(body)
        async with self._session.request(
            method, url, data=data, headers=self._headers, allow_redirects=False
        ) as response:
            content = await response.read()
            if response.status != 200:
                return self._status_failure(response.status, content, response.headers.get("Retry-After"))
        try:
            parsed: object = orjson.loads(content)
        except orjson.JSONDecodeError:
            said = shorten(self._without_secrets(content[:400].decode("utf-8", "replace")))
            what = f"{self.url} replied no JSON: {said}"
            return Failure(Unscorable(Reason.MALFORMED, what), transient=True, status=response.status)
        return parsed

    def _status_failure(self, status: int, content: bytes, retry_after: str | None) -> Failure:
        reason = Reason.OVERLOADED if status in _OVERLOADED_STATUS else Reason.HTTP_ERROR
        said = shorten(self._without_secrets(_error_message(content)), 200)
        return Failure(
            Unscorable(reason, f"{self.url} replied HTTP {status}: {said}"),
            transient=status >= 500 or status in _TRANSIENT_STATUS,
            retry_after_s=retry_after_seconds(retry_after, datetime.now(UTC)),
            status=status,
        )

    def _without_secrets(self, text: str) -> str:
        """The text with keys and passwords masked: servers may repeat a bad key, and ours must not reach a log."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def base_urls(url: str, kind: Literal["vllm", "openai"]) -> tuple[str, str]:
    """The server's root and the root of its OpenAI API, neither with a trailing slash.

    A vLLM server may be given with or without ``/v1``. Other APIs live under any path; only a bare host gets
    ``/v1``.
    """
    parts = urlsplit(url)
    path = parts.path.rstrip("/")
    root = path.removesuffix("/v1")
    api = f"{root}/v1" if kind == "vllm" or not path else path
    return (
        urlunsplit((parts.scheme, parts.netloc, root, "", "")),
        urlunsplit((parts.scheme, parts.netloc, api, "", "")),
    )


def missing_model(reply: object, model: str) -> str | None:
    """The problem with a list of served models, worded to follow the server's URL; None when the model is in it."""
    data = reply.get("data") if isinstance(reply, Mapping) else None
    if not isinstance(data, list):
        return "is no OpenAI-compatible API; correct `endpoints`"
    names = [str(entry.get("id")) for entry in data if isinstance(entry, Mapping)]
    # Some APIs list models with a prefix ("models/…") that requests need not have.
    if any(name == model or name.endswith(f"/{model}") for name in names):
        return None
    listed = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
    return f"does not serve {model!r}; it serves: {listed}; set `served_model_name`"


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


def _error_message(content: bytes) -> str:
    """The message of an OpenAI-style error body, or the body."""
    text = content[:2000].decode("utf-8", "replace")
    try:
        parsed = orjson.loads(content)
    except orjson.JSONDecodeError:
        return text
    error = parsed.get("error", parsed) if isinstance(parsed, Mapping) else parsed
    message = error.get("message") if isinstance(error, Mapping) else None
    return message if isinstance(message, str) else text
