"""`speciarl verifier serve` as a process of its own: training's verifier against it, its commands, and its death."""

import asyncio
import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest
from service_process import STARTUP_S, Service

from speciarl.verdict import Judgement, Pair, Unscorable, Verdict
from speciarl.verifier_server import build, parse_config
from speciarl.verifier_server.config import VerifierConfig

pytestmark = pytest.mark.anyio

KEY = "sesame-open-0123456789"
UPSTREAM_KEY = "upstream-9876543210"
TREE = """{"version": 1, "nodes": [
    {"name": "animal"}, {"name": "dog", "parent": "animal"}, {"name": "samoyed", "parent": "dog"}]}"""
TEXTS = ("dog", "samoyed", "animal", "none", "Dog!", "cat", "x" * 600, "İ", "a private remark")
PAIRS = [Pair(truth, prediction) for truth in ("dog", "samoyed", "fox") for prediction in TEXTS]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def make_fake_judge() -> Callable[[], Any]:
    """The unit tests' stand-in for a vLLM server."""
    path = Path(__file__).parents[1] / "unit" / "conftest.py"
    spec = importlib.util.spec_from_file_location("fake_judge_source", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    judge: Callable[[], Any] = module.FakeJudge
    return judge


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Starts services, and ends those that still run."""
    services: list[Service] = []

    def start(*arguments: str) -> Service:
        services.append(Service(tmp_path, *arguments))
        return services[-1]

    yield start
    for service in services:
        service.stop(signal.SIGKILL)


def write_settings(folder: Path, judge_url: str | None = None, **changes: Any) -> Path:
    """A settings file with the exact judge, and a model behind `judge_url`."""
    (folder / "tree.json").write_text(TREE)
    (folder / "service.key").write_text(KEY)
    (folder / "upstream.key").write_text(UPSTREAM_KEY)
    settings: dict[str, Any] = {
        "port": 0,
        "key_file": str(folder / "service.key"),
        "judges": {"gold": {"kind": "taxonomy", "taxonomy": str(folder / "tree.json")}},
        "verdict_log": {"directory": str(folder / "log"), "rows_per_part": 10, "flush_s": 300},
        "store": {"path": str(folder / "verdicts.sqlite")},
    }
    if judge_url is not None:
        settings["judges"]["main"] = {
            "model": "fake",
            "prompt": "compact",
            "probe": False,
            "endpoints": [judge_url],
            "api_key_file": str(folder / "upstream.key"),
        }
    path = folder / "service.yaml"
    path.write_text(json.dumps(settings | changes))  # JSON is YAML
    return path


@contextlib.asynccontextmanager
async def started(config: VerifierConfig) -> AsyncIterator[Any]:
    verifier = build(config)
    await verifier.start()
    try:
        yield verifier
    finally:
        await verifier.aclose()


def essence(judgement: Judgement) -> Any:
    """All of a judgement but where it came from."""
    if isinstance(judgement, Unscorable):
        return judgement
    return judgement.category, judgement.margin, judgement.probabilities


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "speciarl", "verifier", *arguments]
    return subprocess.run(line, capture_output=True, text=True, timeout=STARTUP_S)


async def test_training_gets_the_same_verdicts_through_a_service(
    make_fake_judge: Callable[[], Any], serve: Callable[..., Service], tmp_path: Path
) -> None:
    async with make_fake_judge().running() as judge:
        judge.answers = {"samoyed": "more specific", "animal": "generic", "none": "abstain"}
        file = write_settings(tmp_path, judge.url)
        service = serve("--config", str(file))
        url = await asyncio.to_thread(service.wait_ready)
        in_process = {
            "gold": {"kind": "taxonomy", "taxonomy": str(tmp_path / "tree.json")},
            "main": {"model": "fake", "prompt": "compact", "probe": False, "endpoints": [judge.url]},
        }
        for name, mapping in in_process.items():
            remote = {"name": name, "service_url": url, "api_key_file": str(tmp_path / "service.key")}
            async with started(parse_config(mapping)) as local, started(parse_config(remote)) as far:
                at_home, abroad = [await asyncio.gather(*map(one.verify, PAIRS)) for one in (local, far)]
                assert [essence(one) for one in abroad] == [essence(one) for one in at_home]
                assert {type(one) for one in abroad} == {Verdict, Unscorable} if name == "gold" else {Verdict}

        options = [url, "--key-file", str(tmp_path / "service.key")]
        asked = await asyncio.to_thread(command, "judge", *options, "--truth", "dog", "--prediction", "samoyed")
        assert (asked.returncode, asked.stdout) == (0, "more specific (taxonomy from gold)\n")
        asked = await asyncio.to_thread(command, "judge", *options, "--truth", "fox", "--prediction", "samoyed")
        assert (asked.returncode, asked.stdout.startswith("unscorable (unknown_concept): ")) == (1, True)
        shown = await asyncio.to_thread(command, "top", *options, "--once")
        assert shown.returncode == 0
        assert judge.url in shown.stdout
        refused = await asyncio.to_thread(command, "top", url, "--once")
        assert (refused.returncode, "give the service's key with --key-file" in refused.stderr) == (2, True)

        headers = {"Authorization": f"Bearer {KEY}"}
        wrong = httpx.post(f"{url}/v1/judge", headers={"Authorization": "Bearer guessed-key"}, json={"pairs": []})
        assert wrong.status_code == 401
        body = {"run": "night", "pairs": [{"ground_truth": "dog", "prediction": "a private remark"}]}
        assert httpx.post(f"{url}/v1/judge", headers=headers, json=body).status_code == 200
        assert (await asyncio.to_thread(service.stop)) in (0, -signal.SIGTERM)
    # Told to stop, it wrote the row that was still in memory.
    assert pq.read_table(tmp_path / "log" / "night")["prediction"].to_pylist() == ["a private remark"]
    said = service.log.read_text()
    for secret in (KEY, UPSTREAM_KEY, "guessed-key", "private remark"):
        assert secret not in said
    entries = [json.loads(line) for line in said.splitlines()]
    assert any(entry.get("route") == "/v1/judge" and entry.get("run") == "night" for entry in entries)


def test_a_killed_service_leaves_whole_parts_and_goes_on_with_the_next(
    serve: Callable[..., Service], tmp_path: Path
) -> None:
    file = write_settings(tmp_path)
    run = tmp_path / "log" / "night"
    headers = {"Authorization": f"Bearer {KEY}"}

    def judge(url: str, numbers: range) -> None:
        pairs = [{"ground_truth": "dog", "prediction": f"cat {number}", "id": str(number)} for number in numbers]
        reply = httpx.post(f"{url}/v1/judge", headers=headers, json={"run": "night", "pairs": pairs})
        assert reply.json()["judged"] == len(pairs)

    service = serve("--config", str(file))
    url = service.wait_ready()
    judge(url, range(25))
    expires = time.monotonic() + 30
    while len(list(run.glob("part-*.parquet"))) < 2:
        assert time.monotonic() < expires
        time.sleep(0.05)
    page = httpx.get(f"{url}/v1/runs/night/results", headers=headers, params={"limit": 100}).json()
    assert [row["pair_id"] for row in page["rows"]] == [str(number) for number in range(25)]
    assert service.stop(signal.SIGKILL) == -signal.SIGKILL

    assert pq.read_table(run)["pair_id"].to_pylist() == [str(number) for number in range(20)]
    (run / ".part-000003-00000000.parquet.tmp").write_bytes(b"half a part")

    service = serve("--config", str(file))
    url = service.wait_ready()
    assert httpx.get(f"{url}/v1/runs/night", headers=headers).json()["pairs"] == 20
    judge(url, range(20, 30))
    rows = httpx.get(f"{url}/v1/runs/night/results", headers=headers, params={"after": page["next"]}).json()["rows"]
    assert [row["pair_id"] for row in rows] == [str(number) for number in range(20, 30)]
    second = command("serve", "--config", str(file))
    assert second.returncode == 2
    assert second.stderr.splitlines()[-1].startswith("speciarl: verdict_log.directory: another service writes to ")
    service.stop()
    assert sorted(int(number) for number in pq.read_table(run)["pair_id"].to_pylist()) == list(range(30))
    assert [name[:11] for name in sorted(os.listdir(run))] == ["part-000001", "part-000002", "part-000003"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"host": "0.0.0.0", "key_file": None}, "speciarl: service: `host` 0.0.0.0 can be reached by others"),
        ({"judges": {"gold": {"kind": "taxonomy", "taxonomy": "nowhere"}}}, "speciarl: judge 'gold': cannot read"),
        ({"key_file": "nowhere"}, "speciarl: service: cannot read key_file nowhere"),
        ({"ports": 1}, "speciarl: ports: there is no such key"),
    ],
)
def test_what_cannot_be_served_ends_in_one_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    ended = command("serve", "--config", str(write_settings(tmp_path, **changes)), "--log-level", "error")
    assert ended.returncode == 2
    assert ended.stderr.startswith(message)
    assert ended.stderr.count("\n") == 1
