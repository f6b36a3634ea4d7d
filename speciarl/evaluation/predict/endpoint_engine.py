"""Endpoint engine: an OpenAI-compatible server answers, through the client that judges are asked with."""

from __future__ import annotations

import base64
import random
import re
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
from speciarl.verifier_server.client.health import HealthWatch
from speciarl.verifier_server.client.http import Client
from speciarl.verifier_server.client.http import Failure as HttpFailure
from speciarl.verifier_server.client.router import Endpoint, Router
from speciarl.verifier_server.config import VerifierConfig
from speciarl.verifier_server.stats import Stats

if TYPE_CHECKING:
    from PIL.Image import Image

_STANDARD = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "max_tokens")
"""Sampling fields of the OpenAI API; the others are vLLM's and are sent only where they do something."""
_REFUSED = re.compile(r"HTTP (400|413|422)\b")


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
        self._client: Client | None = None
        self._health: HealthWatch | None = None
        self._all_fields = False

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
        served = reply.get("data") if isinstance(reply, dict) else None
        # vLLM takes a field that is not sent from the model's generation_config.json; others refuse fields they lack.
        self._all_fields = isinstance(served, list) and any(
            isinstance(one, dict) and one.get("owned_by") == "vllm" for one in served
        )
        router = Router([Endpoint(client)], config.health_interval_s, Stats())
        self._client, self._health = client, HealthWatch(router)
        self._health.start()
        self._dispatcher = Dispatcher(config, router, Stats(), random.Random())

    async def answer(
        self, question: Question, images: Sequence[Image], sampling: Sampling, seeds: Sequence[int | None]
    ) -> list[Answer]:
        """See `Engine.answer`."""
        size = images[0].size if images else (0, 0)
        return [await self._one(question, size, sampling, seed) for seed in seeds]

    async def aclose(self) -> None:
        """See `Engine.aclose`."""
        if self._health is not None:
            await self._health.aclose()
            self._health = None
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _one(self, question: Question, size: tuple[int, int], sampling: Sampling, seed: int | None) -> Answer:
        assert self._dispatcher is not None, "start() comes first"
        reply = await self._dispatcher.ask(
            self._body(question, sampling, seed), lambda parsed: _read(parsed, seed, size)
        )
        if isinstance(reply, Unscorable):
            raise await self._failure(reply)
        return reply

    async def _failure(self, unscorable: Unscorable) -> Exception:
        """What a question without an answer means: a failure of this one, or the end of all."""
        detail = unscorable.detail
        if unscorable.reason is Reason.TIMEOUT:
            return QuestionFailed(Failure.TIMEOUT, detail)
        if unscorable.reason is Reason.CONNECTION:
            assert self._client is not None, "start() comes first"
            reply = await self._client.models()
            if isinstance(reply, HttpFailure) and reply.status is None:
                return EngineDied(f"{detail}; start the same command again when the server is back")
            return QuestionFailed(Failure.ENGINE, detail)  # the server lives: it was this request
        if "maximum context length" in detail or "maximum model length" in detail:
            return QuestionFailed(Failure.PROMPT_TOO_LONG, detail)
        # Only what is said of the request itself would be said again.
        return QuestionFailed(Failure.REFUSED if _REFUSED.search(detail) else Failure.ENGINE, detail)

    def _body(self, question: Question, sampling: Sampling, seed: int | None) -> dict[str, Any]:
        left = iter([f"data:{_mime(data)};base64,{base64.b64encode(data).decode()}" for data in question.images])
        fields = sampling.as_dict()
        neutral = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
        sent = {
            name: value
            for name, value in fields.items()
            if self._all_fields or name in _STANDARD or value != neutral.get(name)
        }
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
        reason = choice.get("finish_reason") or "stop"
        if reason not in ("stop", "length"):
            return Unscorable(Reason.MALFORMED, f"the server ended the answer early: {reason}")
        return Answer(seed, str(text), tokens, prompt_tokens, reason, *size)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return Unscorable(Reason.MALFORMED, f"no chat completion ({type(error).__name__}: {error})")
