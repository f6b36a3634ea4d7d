"""Settings of the unit tests, and a judge server in process for tests of what happens when things break."""

import asyncio
import contextlib
import gc
import json
import math
import selectors
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest
from aiohttp import web
from hypothesis import settings
from listening import listening

# A busy machine is no failure; time limits that matter are asserted where they matter.
settings.register_profile("unit", deadline=None)
settings.load_profile("unit")


def pytest_collection_finish() -> None:
    """What all the imports left is there to stay: collections of garbage need not walk through it each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Several processes of pytest share the cores: threads of torch on top of them spin while they wait."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


Fault = Callable[["FakeJudge", web.Request], Any]
"""What a faulty server does with a chat request: returns a response, or waits, or cuts the line."""

VLLM_FEATURES = frozenset({"logprob_token_ids", "allowed_token_ids", "structured_outputs", "tokenize", "models"})
VLLM_024 = VLLM_FEATURES - {"logprob_token_ids"} | {"logit_bias", "processed_logprobs", "batch"}
"""Of vLLM 0.24 as we start it."""
ANYTHING_ELSE = ord("T")
"""The token with which the judge begins when it does not begin with a label."""


class FakeJudge:
    """Speaks as much of vLLM's HTTP API as the verifier uses. One byte is one token.

    `answers` maps a prediction to the label it gets; equal strings are "specific", the rest is "wrong".
    `features` are the request fields and routes it knows; like the real thing it ignores unknown fields.
    `plan` gives the fault of the n-th chat request (counted from 0 after `arm`), None for none. With the feature
    `batch` several chats may come in one request, which gets the fault of its first; `batches` has their numbers.
    `gate` holds replies back while it is not set.
    """

    def __init__(self) -> None:
        self.answers: dict[str, str] = {}
        self.features = VLLM_FEATURES
        self.models = ["fake"]
        self.max_model_len = 4096
        self.label_prefix = ""
        self.warming_up = False
        self.ill = False
        self.mass = 0.95
        self.delay_s = 0.0
        self.gate = asyncio.Event()
        self.gate.set()
        self.plan: Callable[[int], Fault | None] = lambda _: None
        self.requests: list[dict[str, Any]] = []
        self.batches: list[int] = []
        self.headers: list[Mapping[str, str]] = []
        self.most_at_once = 0
        self.url = ""
        self._now = 0
        self._first = 0

    @property
    def chats(self) -> int:
        """Chat requests since `arm`."""
        return len(self.requests) - self._first

    def arm(self, plan: Callable[[int], Fault | None] | None = None) -> None:
        """Start counting chat requests, and follow a plan of faults."""
        self._first = len(self.requests)
        self.most_at_once = 0
        if plan is not None:
            self.plan = plan

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["FakeJudge"]:
        """Serve on a free port of the loopback interface."""
        app = web.Application()
        app.router.add_get("/health", self._health)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/tokenize", self._tokenize)
        app.router.add_post("/detokenize", self._detokenize)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/chat/completions/batch", self._batch)
        async with listening(app) as self.url:
            yield self

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response(status=503 if self.ill else 200)

    async def _models(self, _: web.Request) -> web.Response:
        if self.warming_up:
            raise web.HTTPServiceUnavailable
        if "models" not in self.features:
            raise web.HTTPNotFound
        return web.json_response({"object": "list", "data": [{"id": name} for name in self.models]})

    async def _tokenize(self, request: web.Request) -> web.Response:
        if "tokenize" not in self.features:
            raise web.HTTPNotFound
        body = await request.json()
        text = body["prompt"] if "prompt" in body else _render(body["messages"])
        for label in ("less specific", "more specific", "specific", "wrong", "abstain", "generic"):
            if text.endswith(label):
                text = text.removesuffix(label) + self.label_prefix + label
                break
        tokens = list(text.encode())
        return web.json_response({"tokens": tokens, "count": len(tokens), "max_model_len": self.max_model_len})

    async def _detokenize(self, request: web.Request) -> web.Response:
        return web.json_response({"prompt": bytes((await request.json())["tokens"]).decode()})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        number = self.chats
        self.requests.append(body)
        self.headers.append(dict(request.headers))
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        try:
            fault = self.plan(number)
            if fault is not None:
                response: web.StreamResponse = await fault(self, request)
                return response
            await asyncio.sleep(self.delay_s)
            await self.gate.wait()
            return web.json_response(self.completion(body))
        finally:
            self._now -= 1

    async def _batch(self, request: web.Request) -> web.StreamResponse:
        if "batch" not in self.features:
            raise web.HTTPNotFound
        body = await request.json()
        fault = self.plan(self.chats)
        chats = [{**body, "messages": messages} for messages in body["messages"]]
        self.requests += chats
        self.batches.append(len(chats))
        if fault is not None:
            response: web.StreamResponse = await fault(self, request)
            return response
        await asyncio.sleep(self.delay_s)
        await self.gate.wait()
        choices = [self.completion(chat)["choices"][0] | {"index": index} for index, chat in enumerate(chats)]
        usage = {"prompt_tokens": 50 * len(chats), "completion_tokens": len(chats)}
        return web.json_response({"object": "chat.completion", "choices": choices[::-1], "usage": usage})

    def completion(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The reply to a chat request."""
        pair = json.loads(body["messages"][-1]["content"])
        same = pair["prediction"] == pair["ground_truth"]
        label = self.answers.get(pair["prediction"], "specific" if same else "wrong")
        choice: dict[str, Any] = {"index": 0, "message": {"role": "assistant", "content": label}}
        if "structured_outputs" in body and "structured_outputs" in self.features:
            allowed = body["structured_outputs"]["choice"]
            choice["message"]["content"] = label if label in allowed else allowed[0]
        if "response_format" in body and "response_format" in self.features:
            allowed = body["response_format"]["json_schema"]["schema"]["properties"]["category"]["enum"]
            said = label if label in allowed else allowed[0]
            choice["message"]["content"] = json.dumps({"category": said})
        if body.get("logprobs"):
            choice["logprobs"] = self._logprobs(body, label.encode()[0])
        return {"object": "chat.completion", "choices": [choice]}

    def _logprobs(self, body: Mapping[str, Any], first: int) -> dict[str, Any]:
        values = {token: -6.0 - token / 1000 for token in b"waglsm"} | {first: math.log(self.mass)}
        values[ANYTHING_ELSE] = math.log(max(1.0 - sum(map(math.exp, values.values())), 1e-9))
        chosen = first
        if "logit_bias" in body and "logit_bias" in self.features:
            biased = {token: value + body["logit_bias"].get(str(token), 0.0) for token, value in values.items()}
            chosen = max(biased, key=lambda token: biased[token])
            if "processed_logprobs" in self.features:
                most = biased[chosen]
                total = most + math.log(sum(math.exp(value - most) for value in biased.values()))
                values = {token: value - total for token, value in biased.items()}
        if "allowed_token_ids" in body and "allowed_token_ids" in self.features:
            allowed = body["allowed_token_ids"]
            chosen = max(allowed, key=lambda token: values[token])
        listed = sorted(values, key=lambda token: -values[token])[: body.get("top_logprobs", 0)]
        if "logprob_token_ids" in body and "logprob_token_ids" in self.features:
            listed = [chosen, *body["logprob_token_ids"]]
        top = [{"token": f"token_id:{token}", "logprob": values[token], "bytes": None} for token in listed]
        return {"content": [{"token": f"token_id:{chosen}", "logprob": values[chosen], "top_logprobs": top}]}


def _render(messages: list[dict[str, str]]) -> str:
    return "".join(f"{message['role']}: {message['content']}\n" for message in messages) + "assistant: "


@pytest.fixture
def fake_judge() -> Callable[[], FakeJudge]:
    """Makes judges, one per server that a test needs."""
    return FakeJudge


@pytest.fixture
def anyio_backend() -> Any:
    """Async tests run on asyncio, as the product does."""
    return "asyncio"


@pytest.fixture
def virtual_time() -> Any:
    """For modules without sockets and threads, which return it as their `anyio_backend`: see `VirtualTimeLoop`."""
    return "asyncio", {"loop_factory": VirtualTimeLoop}


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Its clock only moves when nothing else is left to do: waiting takes no time and is exact, so that a busy machine
    cannot make a test late."""

    def __init__(self) -> None:
        super().__init__(_Jumping(self))
        self.now_s = 0.0

    def time(self) -> float:
        """Seconds on the virtual clock, from 0."""
        return self.now_s


class _Jumping(selectors.DefaultSelector):
    """Waits for nothing, but has the clock moved."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        """What is ready at once."""
        if timeout is None:
            raise AssertionError("everybody waits, and no timer will wake anybody")
        self._loop.now_s += max(timeout, 0.0)
        return super().select(0)
