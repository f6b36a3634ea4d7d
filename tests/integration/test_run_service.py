"""The verifier service of a run, in an actor on a real Ray cluster of two nodes: each pair is judged once for all
workers, its death costs none of them a verdict, and it is reached by its node's address with the key.

The judge is the scripted one of the unit tests. That a cluster of one node uses the loopback interface shows in the
runs of tests/e2e."""

import asyncio
import importlib.util
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from speciarl.errors import VerifierStartError
from speciarl.training.trainer.run_verifier import client_config, own_address, service_settings
from speciarl.utils.credentials import write_key
from speciarl.verdict import Judgement, Pair, Source, Verdict
from speciarl.verifier_server.config import VerifierConfig, parse_config
from speciarl.verifier_server.remote_verifier import RemoteVerifier
from speciarl.verifier_server.service.ray_service import RunService

pytestmark = pytest.mark.anyio

KEY = "a-key-of-the-run"
PAIRS = [Pair("lion", f"cat {index}") for index in range(60)]
WORKERS = 4
IN_FLIGHT = 8


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    nodes.add_node(num_cpus=1)
    nodes.connect()
    yield
    ray.shutdown()
    nodes.shutdown()


@pytest.fixture
async def judge() -> AsyncIterator[Any]:
    spec = importlib.util.spec_from_file_location("scripted", Path(__file__).parents[1] / "unit" / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    async with module.FakeJudge().running() as running:
        yield running


def configured(judge: Any, folder: Path, **changes: Any) -> VerifierConfig:
    defaults = {
        "model": "fake", "prompt": "compact", "probe": False, "endpoints": [judge.url], "max_concurrency": IN_FLIGHT,
        "backoff_s": 0.05, "health_interval_s": 0.5, "startup_deadline_s": 30.0, "chats_per_request": 1,
        "store": {"path": str(folder / "verdicts.sqlite")},
    }  # fmt: skip
    return parse_config(defaults | changes)


def service_of(config: VerifierConfig, folder: Path) -> RunService:
    write_key(folder / "verifier.key", KEY)
    return RunService(service_settings(config, own_address(), folder / "verifier.key"), folder / "verifier.port")


def client_of(service: RunService, config: VerifierConfig, key: str = KEY) -> RemoteVerifier:
    return RemoteVerifier(client_config(config, service.url, Path("elsewhere")), key=key)


async def ask_all(clients: list[RemoteVerifier], pairs: list[Pair]) -> list[Judgement]:
    return list(await asyncio.gather(*(client.verify(pair) for client in clients for pair in pairs)))


async def test_four_workers_one_judgement_a_pair_and_a_death(cluster: None, judge: Any, tmp_path: Path) -> None:
    config = configured(judge, tmp_path)
    service = service_of(config, tmp_path)
    await asyncio.to_thread(service.start, 120.0)
    clients = [client_of(service, config) for _ in range(WORKERS)]
    try:
        for client in clients:
            await client.start()
        assert f"//{ray.util.get_node_ip_address()}:" in service.url
        judge.arm()
        first = await ask_all(clients, PAIRS)
        assert all(isinstance(one, Verdict) for one in first)
        assert judge.chats == len(PAIRS)
        assert (await asyncio.to_thread(service.stats))["live"] == len(PAIRS)

        judge.delay_s = 0.1
        judge.arm()
        others = [Pair("tiger", f"cat {index}") for index in range(60)]
        asking = asyncio.create_task(ask_all(clients, others))
        pid = await asyncio.to_thread(lambda: ray.get(service._actor.process.remote(), timeout=30))
        while judge.chats < len(others) // 2:
            await asyncio.sleep(0.01)
        os.kill(pid, signal.SIGKILL)
        assert all(isinstance(one, Verdict) for one in await asking)
        # What was under way when it died is judged again; what it had answered came from the store.
        assert len(others) < judge.chats <= len(others) + 2 * IN_FLIGHT + 2

        fresh = client_of(service, config)
        clients.append(fresh)
        await fresh.start()
        judge.arm()
        known = await ask_all([fresh], PAIRS)
        assert {one.source for one in known if isinstance(one, Verdict)} == {Source.STORE}
        assert judge.chats == 0
    finally:
        for client in clients:
            await client.aclose()
        await asyncio.to_thread(service.stop)


async def test_a_judge_that_cannot_start_is_told_in_its_own_words(cluster: None, judge: Any, tmp_path: Path) -> None:
    config = configured(judge, tmp_path, model="another")
    service = service_of(config, tmp_path)
    with pytest.raises(VerifierStartError, match="does not serve 'another'"):
        await asyncio.to_thread(service.start, 120.0)


async def test_others_are_turned_away(cluster: None, judge: Any, tmp_path: Path) -> None:
    config = configured(judge, tmp_path)
    service = service_of(config, tmp_path)
    await asyncio.to_thread(service.start, 120.0)
    stranger = client_of(service, config, "another-key")
    try:
        with pytest.raises(VerifierStartError, match="401"):
            await stranger.start()
    finally:
        await stranger.aclose()
        await asyncio.to_thread(service.stop)
