"""Judges on Ray Serve: one URL, a dead server replaced, nothing left behind. Real Ray Serve and real vLLM."""

import asyncio
import json
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pyarrow.parquet as pq
import pytest
from processes import words_of
from prometheus_client.parser import text_string_to_metric_families
from reserved_port import reserve_port

from speciarl.cpu import environment, stack
from speciarl.errors import VerifierStartError
from speciarl.verdict import Pair, Verdict
from speciarl.verifier_server import VerifierConfig, build, parse_config
from speciarl.verifier_server.pool import serve_app
from speciarl.verifier_server.service.config import parse_settings

LAPTOP_JUDGE = str(resources.files("speciarl.laptop") / "models" / "judge")
STARTUP_S = 240.0


def describe(name: str, **pool: Any) -> VerifierConfig:
    """The configuration of the laptop judge, one replica, as Ray Serve runs it."""
    engine: dict[str, Any] = {"enforce_eager": True, "max_num_seqs": 16}
    if not stack.active():
        engine |= {"gpu_memory_utilization": 0.1, "kv_cache_memory_bytes": 2**30}  # vLLM measures nothing then
    small = {
        "dtype": "float32", "gpus_per_replica": 0 if stack.active() else 1, "cpus_per_replica": 1,
        "max_model_len": 1024, "max_replicas": 2, "startup_deadline_s": STARTUP_S, "stop_deadline_s": 10,
        "engine_args": engine,
    }  # fmt: skip
    return parse_config(
        {"name": name, "model": LAPTOP_JUDGE, "served_model_name": "tiny", "prompt": "compact", "max_string_chars": 200,
         "request_timeout_s": 60, "pool": small | pool}
    )  # fmt: skip


def surroundings() -> dict[str, str]:
    """Environment of the servers."""
    return environment.variables() if stack.active() else {}


@pytest.fixture(scope="module")
def options() -> Iterator[serve_app.ServeOptions]:
    """Ray and Ray Serve of our own, whatever else runs on this machine."""
    import ray
    from ray import serve

    gpus = 0 if stack.active() else 1
    with reserve_port() as reserved:
        ray.init(address="local", num_cpus=4, num_gpus=gpus, include_dashboard=False, log_to_driver=False)
        yield serve_app.ServeOptions(port=reserved.getsockname()[1])
        serve.shutdown()
        ray.shutdown()


class Pool(NamedTuple):
    """A deployed pool."""

    url: str
    logs: Path


def judge_servers() -> list[psutil.Process]:
    """vLLM's servers and their guards below this process."""
    found = []
    for process in psutil.Process().children(recursive=True):
        words = words_of(process)
        if "serve" in words or any(word.endswith("subreaper.py") for word in words):
            found.append(process)
    return found


def until(condition: Callable[[], bool], within_s: float) -> None:
    expires = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < expires
        time.sleep(0.2)


def post(url: str, body: dict[str, Any], headers: dict[str, str] | None = None) -> bytes:
    content_type = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), content_type | (headers or {}))
    with urllib.request.urlopen(request, timeout=60) as reply:
        content: bytes = reply.read()
        return content


async def judge_all(config: VerifierConfig, url: str, pairs: list[Pair]) -> list[object]:
    running = {"endpoints": (f"{url}/v1",), "pool": None, "total_deadline_s": STARTUP_S}
    return await judged_by(config.model_copy(update=running), pairs)


@pytest.fixture(scope="module")
def config() -> VerifierConfig:
    """Of the pool that several tests share."""
    return describe("growing", target_ongoing_requests=4, grow_after_s=1, shrink_after_s=1)


@pytest.fixture(scope="module")
def pool(options: serve_app.ServeOptions, config: VerifierConfig, tmp_path_factory: pytest.TempPathFactory) -> Pool:
    """It, deployed from the command line. The last test that uses it removes it."""
    logs = tmp_path_factory.mktemp("pool")
    file = logs / "judge.json.yaml"
    file.write_text(config.model_dump_json(exclude_defaults=True))  # JSON is YAML
    said = speak(options, "up", str(file), "--port", str(options.port), "--logs", str(logs))
    return Pool(said.strip().splitlines()[-1].removesuffix("/v1"), logs)


def test_a_pool_behind_one_url(options: serve_app.ServeOptions, pool: Pool) -> None:
    url = pool.url
    assert url == options.url("growing")
    [shown] = serve_app.status()
    assert (shown.name, shown.status, shown.message) == ("growing", "RUNNING", "")
    assert shown.replicas == {"RUNNING": 1}
    with urllib.request.urlopen(f"{url}/health", timeout=10) as reply:
        assert reply.status == 200
    # Any client of the OpenAI API may come, with streams too.
    chat = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3, "stream": True}
    assert post(f"{url}/v1/chat/completions", chat).rstrip().endswith(b"data: [DONE]")
    assert json.loads(post(f"{url}/tokenize", {"model": "tiny", "prompt": "dog face"}))["count"] > 0


def children_titled(title: str) -> list[psutil.Process]:
    """Descendants of this process whose title begins so: vLLM's engines carry no path in theirs."""
    children = psutil.Process().children(recursive=True)
    return [process for process in children if " ".join(words_of(process)).startswith(title)]


def speak(options: serve_app.ServeOptions, *words: str) -> str:
    """What `speciarl verifier pool …` prints, from a process of its own."""
    import ray

    address = ray.get_runtime_context().gcs_address
    command = [sys.executable, "-m", "speciarl", "verifier", "pool", *words, "--address", address]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=STARTUP_S)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def served(server: psutil.Process) -> float:
    """Requests that a vLLM server has answered, as its own metrics say; none when it has ended."""
    words = words_of(server)
    if not words:
        return 0.0
    url = f"http://127.0.0.1:{words[words.index('--port') + 1]}/metrics"
    with urllib.request.urlopen(url, timeout=10) as reply:
        lines = reply.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("vllm:request_success_total{"))


def of_replicas(metric: str, application: str) -> dict[str, float]:
    """A metric that Ray exports on its node, by replica, summed over its other labels."""
    import ray

    [node] = ray.nodes()
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    found: Counter[str] = Counter()
    with urllib.request.urlopen(url, timeout=10) as reply:
        for family in text_string_to_metric_families(reply.read().decode()):
            for sample in family.samples:
                if sample.name == metric and sample.labels.get("application") == application:
                    found[sample.labels["replica"]] += sample.value
    return dict(found)


async def under_load(config: VerifierConfig, url: str, enough: Callable[[], bool]) -> int:
    """Keep asking about pairs that nobody asked about before, 32 at once, until it is enough; how many were judged.

    Raises AssertionError when one of them gets no verdict, or it never is enough.
    """
    running = config.model_copy(update={"endpoints": (f"{url}/v1",), "pool": None, "chats_per_request": 1})
    verifier = build(running.model_copy(update={"total_deadline_s": STARTUP_S, "max_concurrency": 32}))
    await verifier.start()
    expires = time.monotonic() + STARTUP_S
    judged = 0
    try:
        while not await asyncio.to_thread(enough):
            assert time.monotonic() < expires, serve_app.status()
            pairs = [Pair("dog face", f"cat face {judged + number}") for number in range(64)]
            judgements = await asyncio.gather(*map(verifier.verify, pairs))
            assert all(isinstance(judgement, Verdict) for judgement in judgements), judgements
            judged += len(pairs)
    finally:
        await verifier.aclose()
    return judged


def test_it_grows_under_load_and_shrinks_without(
    options: serve_app.ServeOptions, config: VerifierConfig, pool: Pool
) -> None:
    def both_serve() -> bool:
        servers = [one for one in judge_servers() if not any("subreaper.py" in word for word in words_of(one))]
        running = serve_app.status()[0].replicas.get("RUNNING") == 2
        return running and len(servers) == 2 and all(served(server) > 0 for server in servers)

    assert asyncio.run(under_load(config, pool.url, both_serve)) > 0
    assert "2 running" in speak(options, "status")
    # Load and health of each replica are in Ray's own metrics, which it renews every ten seconds.
    until(lambda: sorted(of_replicas("ray_serve_deployment_replica_healthy", "growing").values()) == [1, 1], 60)
    until(lambda: len(of_replicas("ray_serve_deployment_request_counter_total", "growing")) == 2, 60)
    assert all(count > 0 for count in of_replicas("ray_serve_deployment_request_counter_total", "growing").values())
    assert len(of_replicas("ray_serve_replica_processing_queries", "growing")) == 2
    # The load is gone, and so is the second replica before long.
    until(lambda: serve_app.status()[0].replicas == {"RUNNING": 1}, within_s=STARTUP_S)
    [judgement] = asyncio.run(judge_all(config, pool.url, [Pair("dog face", "cat face")]))
    assert isinstance(judgement, Verdict)


def test_a_killed_server_is_replaced(config: VerifierConfig, pool: Pool) -> None:
    until(lambda: serve_app.status()[0].replicas == {"RUNNING": 1}, within_s=STARTUP_S)
    pairs = [Pair("dog face", text) for text in ("cat face", "animal mammal", "some animal", "rose", "none")]
    truth = asyncio.run(judge_all(config, pool.url, pairs))
    assert all(isinstance(judgement, Verdict) for judgement in truth)

    # The server is killed, and Serve puts another replica in its place: pairs wait for it.
    before = judge_servers()
    engines = children_titled("VLLM::")
    logs = set(pool.logs.glob("growing-*.log"))
    for process in before:
        words = words_of(process)
        if "serve" in words and not any(word.endswith("subreaper.py") for word in words):
            process.kill()
    until(lambda: serve_app.status()[0].status != "RUNNING", within_s=60)
    until(lambda: serve_app.status()[0].status == "RUNNING", within_s=STARTUP_S)
    again = asyncio.run(judge_all(config, pool.url, pairs))
    assert [getattr(judgement, "category", None) for judgement in again] == [
        getattr(judgement, "category", None) for judgement in truth
    ]
    assert len(set(pool.logs.glob("growing-*.log")) - logs) == 1
    assert all(log.is_file() for log in logs)  # that of the crash is kept
    assert not [process for process in before if process.is_running() and words_of(process)]  # a zombie has none
    assert engines
    assert not psutil.wait_procs(engines, timeout=10)[1]  # the guard ends what the killed server leaves
    assert judge_servers()


def test_a_pool_that_is_removed_leaves_nothing(options: serve_app.ServeOptions, pool: Pool) -> None:
    servers = judge_servers()
    assert servers
    speak(options, "down", "growing")
    assert serve_app.status() == []
    _, left = psutil.wait_procs(servers, timeout=30)
    assert not left
    assert not judge_servers()
    assert not serve_app.remove("growing")


def test_no_room_is_said_in_one_line_and_leaves_nothing(options: serve_app.ServeOptions, tmp_path: Path) -> None:
    crowded = describe("crowded", cpus_per_replica=64, placement_deadline_s=2, startup_deadline_s=2)
    with pytest.raises(VerifierStartError, match="'crowded' was not running within 4 s") as caught:
        serve_app.deploy(crowded, tmp_path, surroundings(), options)
    assert "\n" not in str(caught.value)
    assert serve_app.status() == []


def test_the_verdict_service_runs_on_ray_serve(options: serve_app.ServeOptions, tmp_path: Path) -> None:
    nodes = [{"name": "animal"}, {"name": "dog", "parent": "animal"}, {"name": "samoyed", "parent": "dog"}]
    (tmp_path / "tree.json").write_text(json.dumps({"version": 1, "nodes": nodes}))
    (tmp_path / "key").write_text("sesame-open-0123456789")
    gold = {"kind": "taxonomy", "taxonomy": str(tmp_path / "tree.json")}
    log = {"directory": str(tmp_path / "log")}
    settings = parse_settings({"judges": {"gold": gold}, "key_file": str(tmp_path / "key"), "verdict_log": log})
    url = serve_app.deploy_service(settings, "verifier", 120.0, options)
    try:
        pairs = [Pair(truth, text) for truth in ("samoyed", "fox") for text in ("dog", "animal", "none", "Samoyed!")]
        key = {"api_key_file": str(tmp_path / "key"), "startup_deadline_s": 60}
        far = parse_config({"name": "gold", "service_url": url} | key)
        assert asyncio.run(judged_by(far, pairs)) == asyncio.run(
            judged_by(parse_config({"name": "gold"} | gold), pairs)
        )
        with pytest.raises(VerifierStartError, match="check `api_key_file`"):
            asyncio.run(judged_by(far.model_copy(update={"api_key_file": None}), pairs))
        body = {"ground_truths": ["samoyed"], "predictions": ["dog"], "run_name": "old"}
        headers = {"Authorization": "Bearer sesame-open-0123456789"}
        reply = json.loads(post(f"{url}/api/v1/classify/standard", body, headers))
        assert reply == {"classifications": ["less specific"]}
    finally:
        assert serve_app.remove("verifier")
    assert pq.read_table(tmp_path / "log" / "old").num_rows == 1  # it was closed in good order


async def judged_by(config: VerifierConfig, pairs: list[Pair]) -> list[object]:
    verifier = build(config)
    await verifier.start()
    try:
        return list(await asyncio.gather(*map(verifier.verify, pairs)))
    finally:
        await verifier.aclose()


def test_the_command_says_in_one_line_that_there_is_no_ray() -> None:
    program = "from speciarl.verifier_server.pool.cli import app; app()"
    command = [sys.executable, "-c", program, "status", "--address", "127.0.0.1:1"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 2
    assert ran.stderr.strip().splitlines()[-1].startswith("speciarl: Ray cannot be reached at '127.0.0.1:1'")
