"""Judges on Ray Serve: one URL, a dead server replaced, nothing left behind. Real Ray Serve and real vLLM."""

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import psutil
import pytest

from speciarl.cpu import environment, stack
from speciarl.errors import VerifierStartError
from speciarl.verdict import Pair, Verdict
from speciarl.verifier_server import VerifierConfig, build, parse_config, ray_serve

LAPTOP_JUDGE = str(resources.files("speciarl.laptop") / "models" / "judge")
STARTUP_S = 240.0


def describe(name: str, **pool: Any) -> VerifierConfig:
    """The configuration of the laptop judge, one replica, as Ray Serve runs it."""
    engine: dict[str, Any] = {"enforce_eager": True, "max_num_seqs": 16}
    if not stack.active():
        engine["gpu_memory_utilization"] = 0.1
    small = {
        "dtype": "float32", "gpus_per_replica": 0 if stack.active() else 1, "cpus_per_replica": 1,
        "max_model_len": 1024, "max_replicas": 2, "startup_deadline_s": STARTUP_S, "stop_deadline_s": 10,
        "engine_args": engine,
    }  # fmt: skip
    return parse_config(
        {"name": name, "model": LAPTOP_JUDGE, "served_model_name": "tiny", "prompt": "compact", "max_string_chars": 200,
         "pool": small | pool}
    )  # fmt: skip


def surroundings() -> dict[str, str]:
    """Environment of the servers."""
    return environment.variables() if stack.active() else {}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def options() -> Iterator[ray_serve.ServeOptions]:
    """Ray and Ray Serve of our own, whatever else runs on this machine."""
    import ray
    from ray import serve

    gpus = 0 if stack.active() else 1
    ray.init(address="local", num_cpus=4, num_gpus=gpus, include_dashboard=False, log_to_driver=False)
    yield ray_serve.ServeOptions(port=free_port())
    serve.shutdown()
    ray.shutdown()


def judge_servers() -> list[psutil.Process]:
    """vLLM's servers and their guards below this process."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            words = process.cmdline()
        except psutil.NoSuchProcess:
            continue
        if "serve" in words or any(word.endswith("guard.py") for word in words):
            found.append(process)
    return found


def until(condition: Callable[[], bool], within_s: float) -> None:
    expires = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < expires
        time.sleep(0.2)


def post(url: str, body: dict[str, Any]) -> bytes:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as reply:
        content: bytes = reply.read()
        return content


async def judge_all(config: VerifierConfig, url: str, pairs: list[Pair]) -> list[object]:
    running = config.model_copy(update={"endpoints": (f"{url}/v1",), "pool": None, "total_deadline_s": STARTUP_S})
    verifier = build(running)
    await verifier.start()
    try:
        return list(await asyncio.gather(*map(verifier.verify, pairs)))
    finally:
        await verifier.aclose()


def test_a_pool_behind_one_url(options: ray_serve.ServeOptions, tmp_path: Path) -> None:
    config = describe("tiny-judge")
    url = ray_serve.deploy(config, tmp_path, surroundings(), options)
    try:
        [shown] = ray_serve.status()
        assert (shown.name, shown.status, shown.message) == ("tiny-judge", "RUNNING", "")
        assert shown.replicas == {"RUNNING": 1}
        with urllib.request.urlopen(f"{url}/health", timeout=10) as reply:
            assert reply.status == 200
        # Any client of the OpenAI API may come, with streams too.
        chat = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3, "stream": True}
        assert post(f"{url}/v1/chat/completions", chat).rstrip().endswith(b"data: [DONE]")
        assert json.loads(post(f"{url}/tokenize", {"model": "tiny", "prompt": "dog face"}))["count"] > 0

        pairs = [Pair("dog face", text) for text in ("cat face", "animal mammal", "some animal", "rose", "none")]
        truth = asyncio.run(judge_all(config, url, pairs))
        assert all(isinstance(judgement, Verdict) for judgement in truth)

        # The server is killed, and Serve puts another replica in its place: pairs wait for it.
        before = judge_servers()
        engines = children_titled("VLLM::")
        for process in before:
            words = process.cmdline()
            if "serve" in words and not any(word.endswith("guard.py") for word in words):
                process.kill()
        until(lambda: ray_serve.status()[0].status != "RUNNING", within_s=60)
        until(lambda: ray_serve.status()[0].status == "RUNNING", within_s=STARTUP_S)
        again = asyncio.run(judge_all(config, url, pairs))
        assert [getattr(judgement, "category", None) for judgement in again] == [
            getattr(judgement, "category", None) for judgement in truth
        ]
        assert len(list(tmp_path.glob("tiny-judge-*.log"))) == 2  # the log of the crash is kept
        left = [process for process in before if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
        assert not left
        assert engines
        assert not psutil.wait_procs(engines, timeout=10)[1]  # the guard ends what the killed server leaves
        servers = judge_servers()
        assert servers
    finally:
        assert ray_serve.remove("tiny-judge")
    _, left = psutil.wait_procs(servers, timeout=30)
    assert not left
    assert ray_serve.status() == []
    assert not ray_serve.remove("tiny-judge")


def children_titled(title: str) -> list[psutil.Process]:
    """Descendants of this process whose title begins so: vLLM's engines carry no path in theirs."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if " ".join(process.cmdline()).startswith(title):
                found.append(process)
    return found


def test_no_room_is_said_in_one_line_and_leaves_nothing(options: ray_serve.ServeOptions, tmp_path: Path) -> None:
    crowded = describe("crowded", cpus_per_replica=64, placement_deadline_s=2, startup_deadline_s=2)
    with pytest.raises(VerifierStartError, match="'crowded' was not running within 4 s") as caught:
        ray_serve.deploy(crowded, tmp_path, surroundings(), options)
    assert "\n" not in str(caught.value)
    assert ray_serve.status() == []


def test_any_asgi_application_can_be_the_service(options: ray_serve.ServeOptions) -> None:
    def make_app() -> Any:
        from fastapi import FastAPI

        app = FastAPI()

        @app.get("/ready")
        def ready() -> dict[str, bool]:
            return {"ready": True}

        return app

    url = ray_serve._run(ray_serve.service_application(make_app, num_cpus=0.1), "service", 60.0, options)
    with urllib.request.urlopen(f"{url}/ready", timeout=10) as reply:
        assert json.loads(reply.read()) == {"ready": True}
    assert ray_serve.remove("service")


def test_the_command_says_in_one_line_that_there_is_no_ray() -> None:
    program = "from speciarl.verifier_server.pool_cli import app; app()"
    command = [sys.executable, "-c", program, "status", "--address", "127.0.0.1:1"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 2
    assert ran.stderr.strip().splitlines()[-1].startswith("error: Ray cannot be reached at '127.0.0.1:1'")
