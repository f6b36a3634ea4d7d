"""A stand-in for a vLLM judge with the timing of a real one, for measuring clients: no model, right labels.

    python benchmarks/verifier/judge_stub.py --port 8123 --preset 8b

The engine is a continuous batcher. In each step every running request yields one token, and waiting requests join, as
long as there is room (`seqs`) and their uncached prompt tokens fit into the step (`batch_tokens`); a request's first
token comes at the end of the step it joined in. A step takes

    step_ms + prefill_ms * (uncached prompt tokens in it) + decode_ms * (requests in it)

All but the last message counts as cached prefix; of the last message, four characters are one token, and the chat
template adds eight. Constrained replies take the label's tokens and an end token, as in vLLM; the time for the grammar
itself is left out, in favour of those who use it. `8x8b` is eight such engines behind one address, each HTTP request to
the least loaded, as a pool on Ray Serve is. Several conversations in one request (`/v1/chat/completions/batch`) are as
many requests to the engine, and the reply comes when the last is done. With preset `none` a reply costs no time.

The engine's own limits are all there is: vLLM's API server, one process of Python, is left out, and takes about a
millisecond of a core for every conversation (see `judge_decoding.py`, which measures the real thing).

Labels follow from the pair by a hash, so that a client can be held to them. `GET /counts` tells what was asked.
"""

import argparse
import asyncio
import contextlib
import hashlib
import heapq
import itertools
import json
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

LABELS = ("wrong", "abstain", "generic", "less specific", "specific", "more specific")
LABEL_TOKENS = {"wrong": 1, "abstain": 2, "generic": 1, "less specific": 2, "specific": 1, "more specific": 2}
"""Tokens of each label under the tokenizers of Llama 3 and Qwen 2.5."""
TEMPLATE_TOKENS = 8
CHARS_PER_TOKEN = 4


@dataclass(frozen=True)
class Timing:
    """How fast the engine is; milliseconds."""

    step_ms: float
    prefill_ms: float
    decode_ms: float
    seqs: int = 256
    batch_tokens: int = 8192
    engines: int = 1


# One 80 GB accelerator of 2023 (3.35 TB/s, 990 TFLOP/s in 16 bits, 1980 in 8): the weights are read once a step, and
# each token takes 2 FLOP per weight that it uses, at 495 TFLOP/s.
PRESETS: dict[str, Timing | None] = {
    "none": None,
    # Mixture of experts, 30 billion weights in 8 bits, 3.3 billion of them used by a token: the paper's training judge.
    # A step of some dozens of tokens meets all experts; their small matrices keep it at a quarter of the 8-bit peak.
    "30b-a3b": Timing(step_ms=11.0, prefill_ms=0.0133, decode_ms=0.03),
    "8b": Timing(step_ms=8.0, prefill_ms=0.032, decode_ms=0.02),
    "8x8b": Timing(step_ms=8.0, prefill_ms=0.032, decode_ms=0.02, engines=8),
    # The same over four of them, with tensor parallelism.
    "70b": Timing(step_ms=20.0, prefill_ms=0.07, decode_ms=0.05),
}


def true_label(ground_truth: str, prediction: str) -> str:
    """The label this judge gives a pair, whatever the texts mean."""
    digest = hashlib.blake2b(f"{ground_truth}\0{prediction}".encode(), digest_size=4).digest()
    return LABELS[int.from_bytes(digest, "big") % len(LABELS)]


class Engine:
    """The continuous batcher."""

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._waiting: list[tuple[int, int, int, asyncio.Future[None]]] = []
        self._arrivals = itertools.count()
        self._wake = asyncio.Event()
        self.load = 0
        """Requests waiting or running."""

    async def generate(self, prompt_tokens: int, output_tokens: int) -> None:
        """Return when the last token is out."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (next(self._arrivals), prompt_tokens, output_tokens, done))
        self._wake.set()
        self.load += 1
        try:
            await done
        finally:
            self.load -= 1

    async def run(self) -> None:
        """Step after step, for ever."""
        timing, running = self._timing, list[list[Any]]()
        clock = asyncio.get_running_loop().time
        ends = clock()
        while True:
            if not running and not self._waiting:
                self._wake.clear()
                await self._wake.wait()
                ends = clock()
            prefill = 0
            while self._waiting and len(running) < timing.seqs:
                if prefill and prefill + self._waiting[0][1] > timing.batch_tokens:
                    break
                _, prompt_tokens, output_tokens, done = heapq.heappop(self._waiting)
                prefill += prompt_tokens
                running.append([output_tokens, done])
            ends += (timing.step_ms + timing.prefill_ms * prefill + timing.decode_ms * len(running)) / 1000
            await asyncio.sleep(ends - clock())
            for request in running:
                request[0] -= 1
                if request[0] <= 0 and not request[1].done():
                    request[1].set_result(None)
            running = [request for request in running if request[0] > 0 and not request[1].done()]


class Stub:
    """The HTTP side. One byte is one token for `/tokenize`, which is all that first-token judging needs to know."""

    def __init__(self, timing: Timing | None) -> None:
        self._engines = [Engine(timing) for _ in range(timing.engines)] if timing is not None else []
        self._chats = self._conversations = 0
        self._output_tokens = 0
        self._asked: set[tuple[str, str]] = set()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Any request."""
        path = request.path
        if path == "/v1/chat/completions":
            engine = self._least_loaded()
            return _reply(await self._chat(orjson.loads(await request.read()), engine))
        if path == "/v1/chat/completions/batch":
            body, engine = orjson.loads(await request.read()), self._least_loaded()
            chats = [self._chat({**body, "messages": messages}, engine) for messages in body["messages"]]
            self._chats += 1 - len(chats)
            return _reply(_merge(await asyncio.gather(*chats)))
        if path == "/v1/models":
            return _reply({"object": "list", "data": [{"id": "stub", "object": "model"}]})
        if path == "/counts":
            counts = {"chats": self._chats, "conversations": self._conversations, "pairs": len(self._asked)}
            counts["output_tokens"] = self._output_tokens
            self._chats = self._conversations = self._output_tokens = 0
            self._asked = set()
            return _reply(counts)
        if path in ("/tokenize", "/detokenize"):
            return _reply(_tokenize(orjson.loads(await request.read())))
        return web.Response(status=200 if path == "/health" else 404)

    async def start(self, port: int) -> None:
        """Serve on the loopback interface, for ever."""
        runner = web.ServerRunner(web.Server(self.handle))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port, backlog=1024).start()
        print("ready", flush=True)
        await asyncio.gather(asyncio.Event().wait(), *(engine.run() for engine in self._engines))

    def _least_loaded(self) -> Engine | None:
        return min(self._engines, key=lambda engine: engine.load, default=None)

    async def _chat(self, body: Mapping[str, Any], engine: Engine | None) -> dict[str, Any]:
        content = body["messages"][-1]["content"]
        pair = json.loads(content[content.rindex("{") :])
        label = true_label(pair["ground_truth"], pair["prediction"])
        output_tokens = LABEL_TOKENS[label] + 1
        if "structured_outputs" in body:
            choices = body["structured_outputs"]["choice"]
            label = label if label in choices else choices[0]
        output_tokens = min(output_tokens, body.get("max_tokens") or output_tokens)
        prompt_tokens = TEMPLATE_TOKENS + len(content) // CHARS_PER_TOKEN
        self._chats += 1
        self._conversations += 1
        self._output_tokens += output_tokens
        self._asked.add((pair["ground_truth"], pair["prediction"]))
        if engine is not None:
            await engine.generate(prompt_tokens, output_tokens)
        choice: dict[str, Any] = {
            "index": 0, "finish_reason": "stop", "logprobs": None,
            "message": {"role": "assistant", "content": label if output_tokens > 1 else label[0]},
        }  # fmt: skip
        if body.get("logprobs"):
            choice["logprobs"] = {"content": [_position(label, body["logprob_token_ids"])]}
        usage = {"prompt_tokens": prompt_tokens, "completion_tokens": output_tokens, "total_tokens": 0}
        return {
            "id": "chatcmpl-stub", "object": "chat.completion", "created": 0, "model": "stub",
            "choices": [choice], "usage": usage,
        }  # fmt: skip


def _merge(replies: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One reply with a choice per conversation."""
    choices = [{**reply["choices"][0], "index": index} for index, reply in enumerate(replies)]
    usage = {key: sum(reply["usage"][key] for reply in replies) for key in replies[0]["usage"]}
    return {**replies[0], "choices": choices, "usage": usage}


def _position(label: str, tokens: list[int]) -> dict[str, Any]:
    """Log-probabilities of the asked tokens; the label's first byte is by far the likeliest."""
    chosen = label.encode()[0]
    listed = [
        {"token": f"token_id:{token}", "logprob": -0.1 if token == chosen else -6.0 - token / 100, "bytes": None}
        for token in dict.fromkeys([chosen, *tokens])
    ]
    return {**listed[0], "top_logprobs": listed}


def _tokenize(body: Mapping[str, Any]) -> dict[str, Any]:
    if "tokens" in body:
        return {"prompt": bytes(body["tokens"]).decode()}
    messages = body.get("messages") or []
    text = body.get("prompt") or "".join(f"{one['role']}: {one['content']}\n" for one in messages)
    tokens = list(text.encode())
    return {"tokens": tokens, "count": len(tokens), "max_model_len": 32768}


def _reply(content: Mapping[str, Any]) -> web.Response:
    return web.Response(body=orjson.dumps(content), content_type="application/json")


@contextlib.contextmanager
def running(preset: str) -> Iterator[str]:
    """The URL of a stub in a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(Path(__file__)), "--port", str(port), "--preset", preset]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--preset", choices=sorted(PRESETS), default="8b")
    options = parser.parse_args()
    asyncio.run(Stub(PRESETS[options.preset]).start(options.port))


if __name__ == "__main__":
    main()
