"""A real judge on vLLM behind the fault injector, for runs in other processes."""

import asyncio
import contextlib
import json
import re
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

from aiohttp import web
from fault_proxy import Fault, FaultProxy

from speciarl.cpu import environment, stack
from speciarl.verdict import Judgement, Pair
from speciarl.verifier_server import VerifierConfig, build, parse_config
from speciarl.verifier_server.pool.vllm_server import Replica, vllm_command

JUDGE = str(resources.files("speciarl.laptop") / "models" / "judge")
NAME = "laptop-judge"
FaultOf = Callable[[Pair], Fault | None]
"""What becomes of the request for a (normalised) pair; None for nothing out of the ordinary."""


def describe() -> VerifierConfig:
    """The laptop judge, one replica."""
    engine: dict[str, Any] = {"enforce_eager": True, "max_num_seqs": 32}
    if not stack.active():
        engine |= {"gpu_memory_utilization": 0.1, "kv_cache_memory_bytes": 2**30}  # vLLM measures nothing then
    pool = {"dtype": "float32", "gpus_per_replica": 0, "max_model_len": 512, "engine_args": engine}
    return parse_config(
        {"name": "laptop", "model": JUDGE, "served_model_name": NAME, "prompt": "compact", "max_string_chars": 120,
         "request_timeout_s": 60, "pool": pool}
    )  # fmt: skip


def pairs_of(body: dict[str, Any]) -> list[Pair]:
    """What a request asks about: one chat, or several that share it."""
    chats = body["messages"] if isinstance(body["messages"][0], list) else [body["messages"]]
    found = [json.loads(re.search(r"\{.*\}", chat[-1]["content"], re.DOTALL)[0]) for chat in chats]  # type: ignore[index]
    return [Pair(one["ground_truth"], one["prediction"]) for one in found]


class JudgeBehindFaults:
    """The proxy runs in a thread of its own; its address stays while it is down."""

    def __init__(self, server_url: str) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._server_url = server_url
        self._proxy = FaultProxy(server_url)
        self._do(self._proxy.start())

    @property
    def url(self) -> str:
        """Its OpenAI-compatible address."""
        return f"{self._proxy.url}/v1"

    @property
    def overrides(self) -> list[str]:
        """What makes a run use this judge, with more patience than any outage or loaded machine takes."""
        return [
            "recipe/verifier=vllm", f"speciarl.verifier.model={JUDGE}",
            f"speciarl.verifier.endpoints=[{self.url}]", "speciarl.verifier.prompt=compact",
            f"+speciarl.verifier.served_model_name={NAME}", "+speciarl.verifier.max_string_chars=120",
            "+speciarl.verifier.probe=false", "+speciarl.verifier.retries=2", "+speciarl.verifier.backoff_s=0.05",
            "+speciarl.verifier.request_timeout_s=20", "+speciarl.verifier.total_deadline_s=40",
        ]  # fmt: skip

    @property
    def asked(self) -> int:
        """Pairs that were asked for since the faults were set."""
        return self._proxy.chats

    def set_faults(self, fault_of: FaultOf | None = None) -> None:
        """From now on; None ends all faults."""
        if fault_of is None:
            self._proxy.inject(None)
            return
        decide = fault_of

        async def judge(proxy: FaultProxy, request: web.Request) -> web.StreamResponse:
            for pair in pairs_of(json.loads(await request.read())):
                if (fault := decide(pair)) is not None:
                    return await fault(proxy, request)
            status, body = await proxy.forward(request)
            return web.Response(status=status, body=body, content_type="application/json")

        self._proxy.inject(lambda _: judge)

    def go_down(self) -> None:
        """Refuse every connection."""
        self._do(self._proxy.go_down())

    def come_up(self) -> None:
        """Be there again."""
        self._do(self._proxy.come_up())

    def truth(self, pairs: list[Pair]) -> list[Judgement]:
        """What the judge says without the proxy."""
        config = describe().model_copy(update={"endpoints": (f"{self._server_url}/v1",), "pool": None})

        async def ask() -> list[Judgement]:
            verifier = build(config)
            await verifier.start()
            try:
                return await asyncio.gather(*map(verifier.verify, pairs))
            finally:
                await verifier.aclose()

        return asyncio.run(ask())

    def stop(self) -> None:
        """End the proxy, and the requests that it lets hang."""
        self._do(self._proxy.stop())
        self._do(self._end_tasks())
        self._loop.call_soon_threadsafe(self._loop.stop)

    async def _end_tasks(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _do(self, work: Coroutine[Any, Any, None] | Awaitable[None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(60)  # type: ignore[arg-type]


@contextlib.contextmanager
def judge_behind_faults(logs: Path) -> Iterator[JudgeBehindFaults]:
    """Start the judge and the proxy, and stop both."""
    config = describe()
    assert config.pool is not None
    env = environment.variables() if stack.active() else {}
    server = Replica(partial(vllm_command, config, config.pool), logs / "judge.log", env=env)
    server.start()
    try:
        url = server.wait_ready(300)
        judge = JudgeBehindFaults(url)
        try:
            yield judge
        finally:
            judge.stop()
    finally:
        server.stop()
