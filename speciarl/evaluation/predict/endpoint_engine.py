"""Endpoint engine: an OpenAI-compatible server answers, through the client that judges are asked with."""

from __future__ import annotations

import base64
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import aiohttp

from speciarl.errors import ConfigError
from speciarl.evaluation.config import EngineConfig, ModelConfig
from speciarl.evaluation.predict.answer import Answer, EngineDied, Failure, QuestionFailed
from speciarl.evaluation.predict.question import IMAGE, Question
from speciarl.evaluation.predict.sampling import Sampling
from speciarl.utils.credentials import read_key
from speciarl.verdict import Reason, Unscorable
from speciarl.verifier_server.client.dispatcher import Dispatcher
from speciarl.verifier_server.client.http import Client
from speciarl.verifier_server.client.http import Failure as HttpFailure
from speciarl.verifier_server.client.router import Endpoint, Router
from speciarl.verifier_server.config import VerifierConfig
from speciarl.verifier_server.stats import Stats

if TYPE_CHECKING:
    from PIL.Image import Image

_STANDARD = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "max_tokens")
"""Sampling fields of the OpenAI API; the others are vLLM's and are sent only where they do something."""


class EndpointEngine:
    """Answers with a server. See `Engine` for its methods.

    What the server runs is not known: the key of its answers holds the model's name and revision, as the only content
    there is to tell.
    """

    def __init__(self, model: ModelConfig, config: EngineConfig) -> None:
        """Opens nothing."""
        self._model = model
        # Retries, routing and the queue are the judges' own; the client's settings have that name.
        self._client_config = VerifierConfig(
            kind="openai",
            model=model.path,
            endpoints=(model.endpoint or "",),
            api_key_file=model.api_key_file,
            max_concurrency=config.window,
            request_timeout_s=config.request_deadline_s,
            total_deadline_s=config.request_deadline_s,
        )
        self._session: aiohttp.ClientSession | None = None
        self._dispatcher: Dispatcher | None = None

    together = False
    """See `Engine.together`."""

    @property
    def setup(self) -> Mapping[str, Any]:
        """See `Engine.setup`."""
        return {
            "engine": "OpenAI-compatible server",
            "model": self._model.path,
            "revision": self._model.revision,
        }

    async def start(self) -> None:
        """See `Engine.start`."""
        config = self._client_config
        key = read_key(config.api_key_file, "the endpoint") if config.api_key_file else None
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=3),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
        )
        client = Client(config.endpoints[0], "openai", self._session, config.request_timeout_s, key)
        reply = await client.models()
        # Some servers list no models; a wrong key or address is told now instead of once per question.
        if isinstance(reply, HttpFailure) and (reply.status is None or reply.status in (401, 403)):
            await self.aclose()
            raise ConfigError(f"the endpoint cannot be used: {reply.unscorable.detail}")
        router = Router([Endpoint(client)], config.health_interval_s, Stats())
        self._dispatcher = Dispatcher(config, router, Stats(), random.Random())

    async def answer(
        self, question: Question, images: Sequence[Image], sampling: Sampling, seeds: Sequence[int | None]
    ) -> list[Answer]:
        """See `Engine.answer`."""
        size = images[0].size if images else (0, 0)
        return [await self._one(question, size, sampling, seed) for seed in seeds]

    async def aclose(self) -> None:
        """See `Engine.aclose`."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _one(self, question: Question, size: tuple[int, int], sampling: Sampling, seed: int | None) -> Answer:
        assert self._dispatcher is not None, "start() comes first"
        reply = await self._dispatcher.ask(
            self._body(question, sampling, seed), lambda parsed: _read(parsed, seed, size)
        )
        if isinstance(reply, Unscorable):
            raise _failure(reply)
        return reply

    def _body(self, question: Question, sampling: Sampling, seed: int | None) -> dict[str, Any]:
        left = iter([f"data:{_mime(data)};base64,{base64.b64encode(data).decode()}" for data in question.images])
        fields = sampling.as_dict()
        neutral = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
        sent = {name: value for name, value in fields.items() if name in _STANDARD or value != neutral.get(name)}
        messages = [{"role": role, "content": _content(text, left)} for role, text in question.messages]
        return {"model": self._model.path, "messages": messages, **sent} | ({} if seed is None else {"seed": seed})


def _content(text: str, urls: Iterator[str]) -> str | list[dict[str, Any]]:
    if IMAGE not in text:
        return text
    parts: list[dict[str, Any]] = []
    for index, piece in enumerate(text.split(IMAGE)):
        if index:
            parts.append({"type": "image_url", "image_url": {"url": next(urls)}})
        if piece:
            parts.append({"type": "text", "text": piece})
    return parts


def _mime(data: bytes) -> str:
    return "image/png" if data.startswith(b"\x89PNG") else "image/jpeg"


def _read(reply: object, seed: int | None, size: tuple[int, int]) -> Answer | Unscorable:
    """The answer in a chat completion; Unscorable for a reply that is none."""
    try:
        [choice] = reply["choices"]  # type: ignore[index]
        text = choice["message"]["content"] or ""
        usage = reply.get("usage") or {}  # type: ignore[attr-defined]
        tokens, prompt_tokens = int(usage.get("completion_tokens") or 0), int(usage.get("prompt_tokens") or 0)
        return Answer(seed, str(text), tokens, prompt_tokens, choice.get("finish_reason") or "stop", *size)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return Unscorable(Reason.MALFORMED, f"no chat completion ({type(error).__name__}: {error})")


def _failure(unscorable: Unscorable) -> Exception:
    if unscorable.reason is Reason.TIMEOUT:
        return QuestionFailed(Failure.TIMEOUT, unscorable.detail)
    if unscorable.reason is Reason.CONNECTION:
        return EngineDied(f"{unscorable.detail}; start the same command again when the server is back")
    too_long = "maximum context length" in unscorable.detail or "maximum model length" in unscorable.detail
    kind = Failure.PROMPT_TOO_LONG if too_long else Failure.REFUSED
    return QuestionFailed(kind if unscorable.reason is Reason.HTTP_ERROR else Failure.ENGINE, unscorable.detail)
