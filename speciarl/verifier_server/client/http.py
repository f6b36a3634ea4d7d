"""HTTP client of one OpenAI-compatible server: returns a parsed reply, or a Failure with its cause."""

import codecs
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any, Literal
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import orjson

from speciarl.utils.credentials import authorization, passwords, public_url, split
from speciarl.utils.deadline import within
from speciarl.utils.proxies import proxy_of
from speciarl.utils.text import shorten
from speciarl.verdict import Reason, Unscorable
from speciarl.verifier_server.client.error_body import (
    WRONG_ADDRESS,
    advice,
    error_message,
    error_status,
    retry_after_seconds,
)

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

    setting = "endpoints"
    """The key that holds the URL, for messages."""

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
        parts = split(url)
        self._query = f"?{parts.query}" if parts is not None and parts.query else ""
        self._proxy = proxy_of(url)
        self._kind = kind
        self._session = session
        self._timeout_s = timeout_s
        self._model = model
        header = authorization(url, api_key)
        self._headers = _JSON | ({"Authorization": header} if header else {})
        if api_key and parts is not None and "api-version=" in parts.query:
            self._headers["api-key"] = api_key  # Azure's deployments take their key there
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

    def trust_model(self) -> None:
        """Look for the model in no list from now on: the server's own cannot be relied on."""
        self._model = None

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
            method, url + self._query, data=data, headers=self._headers, allow_redirects=False, proxy=self._proxy
        ) as response:
            content = (await response.read()).removeprefix(codecs.BOM_UTF8)
            headers = response.headers
            if response.status != 200:
                return self._status_failure(f"{method} {url}", response.status, content, headers)
        try:
            parsed: object = orjson.loads(content)
        except orjson.JSONDecodeError as error:
            return self._no_json(content, error)
        status = error_status(parsed)
        if status is None:
            return parsed
        return self._status_failure(f"{method} {url}", status, content, headers, inside_of=200)

    def _no_json(self, content: bytes, error: orjson.JSONDecodeError) -> Failure:
        text = content.decode("utf-8", "replace")
        if text.startswith(("data:", "event:")):
            problem = "a stream of events; take `stream` out of `request_fields`"
        elif not text.strip():
            problem = "nothing"
        else:
            # What is wrong may come long after a start that looks well.
            begin = max(error.pos - 20, 0) if error.pos > 60 else 0
            problem = f"no JSON ({error.msg}): {shorten(text[begin : begin + 400])}"
        detail = self._without_secrets(f"{self.url} replied {problem}")
        return Failure(Unscorable(Reason.MALFORMED, detail), transient=True, status=200)

    def _status_failure(
        self, request: str, status: int, content: bytes, headers: Mapping[str, str], inside_of: int | None = None
    ) -> Failure:
        """A failure by HTTP status, or by the status of an error that came inside of a reply of another one."""
        reason = Reason.OVERLOADED if status in _OVERLOADED_STATUS else Reason.HTTP_ERROR
        said = shorten(self._without_secrets(error_message(content)), 200)
        inside = f" inside HTTP {inside_of}" if inside_of is not None else ""
        remedy = advice(status, said, headers.get("Location"), self.setting)
        where = request if status in WRONG_ADDRESS or 300 <= status < 400 else self.url
        return Failure(
            Unscorable(reason, f"{where} replied HTTP {status}{inside}: {said}{remedy}"),
            transient=status >= 500 or status in _TRANSIENT_STATUS,
            retry_after_s=retry_after_seconds(headers.get("Retry-After"), datetime.now(UTC)),
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
    """The problem with a list of served models, worded to follow the server's URL; None when the model is in it.

    The list may be bare or under `data` or `models`, its entries names or objects with `id` or `name`.
    """
    data = reply if isinstance(reply, list) else None
    if isinstance(reply, Mapping):
        data = next((reply[key] for key in ("data", "models") if isinstance(reply.get(key), list)), None)
    if data is None:
        return "is no OpenAI-compatible API; correct `endpoints`"
    names = [str(e.get("id") or e.get("name")) if isinstance(e, Mapping) else str(e) for e in data]
    # Some APIs list models with a prefix ("models/…") that requests need not have; gateways list patterns ("*").
    if any(name == model or name.endswith(f"/{model}") or ("*" in name and fnmatchcase(model, name)) for name in names):
        return None
    listed = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
    return f"does not serve {model!r}; it serves: {listed}; set `served_model_name`"
