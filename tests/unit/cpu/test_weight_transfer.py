"""The gloo weight transfer, with each side in a thread of its own: what is sent arrives, bit by bit."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from verl.checkpoint_engine import CheckpointEngineRegistry

from speciarl.cpu import weight_transfer
from speciarl.cpu.weight_transfer import BACKEND, GlooCheckpointEngine, Weight


@pytest.fixture(autouse=True)
def on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_transfer.ray.util, "get_node_ip_address", lambda: "127.0.0.1")


def weights() -> list[Weight]:
    torch.manual_seed(0)
    return [
        ("embedding", torch.randn(7, 5)),
        ("half", torch.randn(3, dtype=torch.bfloat16)),
        ("transposed", torch.randn(4, 6).T),
        ("scalar", torch.tensor(3.5)),
        ("ids", torch.arange(11)),
    ]


async def received(engine: GlooCheckpointEngine) -> list[Weight]:
    return [weight async for weight in engine.receive_weights(global_steps=1)]


def transfer(sent: list[Weight], bucket_size: int, engines: list[GlooCheckpointEngine]) -> list[list[Weight]]:
    """One round between a trainer of two processes and the remaining engines as rollout processes."""
    actor, receivers = GlooCheckpointEngine.build_topology(2, len(engines) - 2, [one.prepare() for one in engines])
    arguments = [
        {name: values[index] for name, values in side.items()}
        for side, count in ((actor, 2), (receivers, len(engines) - 2))
        for index in range(count)
    ]
    walked: list[str] = []

    def walk() -> Iterator[Weight]:
        for name, weight in sent:
            walked.append(name)
            yield name, weight

    with ThreadPoolExecutor(len(engines)) as pool:
        list(pool.map(lambda engine, kwargs: engine.init_process_group(**kwargs), engines, arguments))
        senders = [pool.submit(asyncio.run, engine.send_weights(walk(), 1)) for engine in engines[:2]]
        got = [pool.submit(asyncio.run, received(engine)) for engine in engines[2:]]
        for sender in senders:
            sender.result(60)
        arrived = [one.result(60) for one in got]
    assert sorted(walked) == sorted(2 * [name for name, _ in sent])
    for engine in engines:
        engine.finalize()
    return arrived


@pytest.mark.parametrize("bucket_size", [1, 64, 1 << 20])
def test_what_is_sent_arrives_at_every_server_twice_in_a_row(bucket_size: int) -> None:
    engines = [GlooCheckpointEngine(bucket_size, is_master=index == 0) for index in range(4)]
    for sent in (weights(), weights()[::-1]):
        for arrived in transfer(sent, bucket_size, engines):
            assert [name for name, _ in arrived] == [name for name, _ in sent]
            for (_, there), (_, here) in zip(arrived, sent, strict=True):
                assert there.dtype == here.dtype
                assert torch.equal(there, here)


def test_the_backend_has_the_name_that_the_recipe_uses() -> None:
    assert CheckpointEngineRegistry.get(BACKEND) is GlooCheckpointEngine
