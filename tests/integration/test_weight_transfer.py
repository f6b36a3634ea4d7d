"""veRL's own manager of weight transfers, over Ray workers one of which hangs, or a rollout server that fails."""

import asyncio
import os
import time
from collections.abc import Iterator
from typing import Any

import pytest
import ray
from verl.checkpoint_engine import CheckpointEngineManager
from verl.workers.config import CheckpointEngineConfig

from speciarl.errors import WeightTransferFailed, WeightTransferStuck
from speciarl.patches.verl import job_of_cluster
from speciarl.training.trainer.weight_deadline import set_deadline

HANGS_S = 600.0
WELL, REFUSES_A_WEIGHT, REFUSES_TO_BEGIN, DIES = range(4)
"""What the rollout server does in a step."""


@ray.remote(num_cpus=0)
class Sender:
    """Stands in for a trainer worker: sends at once, except in the step in which it is told to hang."""

    def update_weights(self, step: int) -> int:
        if step == 2:
            time.sleep(HANGS_S)
        return step


class Senders:
    """What the manager sees of veRL's worker group."""

    world_size = 2

    def __init__(self) -> None:
        self.workers = [Sender.remote() for _ in range(self.world_size)]

    def update_weights(self, global_steps: int, mode: str) -> list[Any]:
        assert mode == "naive"
        hung, well = self.workers
        return [hung.update_weights.remote(global_steps), well.update_weights.remote(0)]


@ray.remote(num_cpus=0, max_concurrency=4)
class Server:
    """Stands in for a rollout server, with veRL's own receiver instead of vLLM."""

    def __init__(self) -> None:
        self.now = WELL
        self.names: list[str] = []

    async def behave(self, now: int) -> None:
        self.now = now

    async def loaded(self) -> list[str]:
        return self.names

    async def collective_rpc(self, method: str, timeout: Any, args: Any, kwargs: dict[str, Any]) -> None:
        assert (method, args) == ("update_weights_from_ipc", ())
        if self.now == REFUSES_TO_BEGIN:
            raise RuntimeError("the adapter is unknown")
        self.names = []
        await asyncio.to_thread(self._receive, kwargs["use_shm"])

    def _receive(self, use_shm: bool) -> None:
        import torch
        from verl.workers.rollout.vllm_rollout.bucketed_weight_transfer import BucketedWeightReceiver

        job = job_of_cluster(ray.get_runtime_context())
        socket = f"ipc:///tmp/rl-colocate-zmq-{job}-replica-0-rank-0.sock"
        BucketedWeightReceiver(socket, torch.device("cpu"), use_shm).receive_weights(self._load)

    def _load(self, weights: list[tuple[str, Any]], is_last: bool) -> None:
        self.names += [name for name, _ in weights]
        if self.now == DIES:
            os._exit(1)
        if self.now == REFUSES_A_WEIGHT:
            raise ValueError("'Parameter' object has\nno attribute 'weight_loader'")

    async def clear_kv_cache(self) -> None:
        pass

    async def set_global_steps(self, steps: int) -> None:
        pass


@ray.remote(num_cpus=0)
class Trainer:
    """Stands in for a trainer worker, with veRL's own sender."""

    def __init__(self) -> None:
        os.environ.update(RANK="0", RAY_LOCAL_WORLD_SIZE="1")
        from verl.workers.config import HFModelConfig, RolloutConfig
        from verl.workers.rollout.vllm_rollout.vllm_rollout import ServerAdapter

        config = RolloutConfig(name="vllm", checkpoint_engine=CheckpointEngineConfig(update_weights_bucket_megabytes=1))
        model = HFModelConfig.__new__(HFModelConfig)  # the adapter only keeps it
        self.adapter = ServerAdapter(config, model, None)

    async def update_weights(self, step: int) -> None:
        import torch

        weights = [(name, torch.ones(200_000)) for name in ("first", "second", "third")]  # .8 MB, a bucket each
        await self.adapter.update_weights(iter(weights), global_steps=step)


class Trainers:
    """What the manager sees of veRL's worker group: one that hangs beside the one that sends, as in a gathering."""

    world_size = 2

    def __init__(self) -> None:
        self.hangs, self.sends = Sender.remote(), Trainer.remote()

    def update_weights(self, global_steps: int, mode: str) -> list[Any]:
        return [self.hangs.update_weights.remote(global_steps), self.sends.update_weights.remote(global_steps)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def senders(cluster: None) -> Senders:
    """Two that have started: what a test measures begins after that."""
    started = Senders()
    ray.get(started.update_weights(1, "naive"))
    return started


def test_a_hung_sender_ends_the_wait_and_a_well_one_does_not(senders: Senders) -> None:
    manager = CheckpointEngineManager(CheckpointEngineConfig(backend="naive"), senders, [])
    set_deadline(manager, 10.0)
    assert manager.update_weights(1) == {}
    began = time.monotonic()
    with pytest.raises(WeightTransferStuck):
        manager.update_weights(2)
    assert 10.0 <= time.monotonic() - began < 60.0


def test_a_server_that_fails_ends_the_transfer_with_its_error(cluster: None) -> None:
    server = Server.options(name="vllm_server_0_0").remote()
    trainers = Trainers()
    manager = CheckpointEngineManager(CheckpointEngineConfig(backend="naive"), trainers, [])
    set_deadline(manager, 300.0)
    for behaviour, cause in (
        (WELL, ""),
        (REFUSES_A_WEIGHT, "ValueError: 'Parameter' object has no attribute 'weight_loader'"),
        (REFUSES_TO_BEGIN, "RuntimeError: the adapter is unknown"),
        (WELL, ""),  # the sender is free for the next transfer
        (DIES, "ActorDiedError: "),
    ):
        ray.get(server.behave.remote(behaviour))
        if not cause:
            assert manager.update_weights(1) == {}
            assert ray.get(server.loaded.remote()) == ["first", "second", "third"]
            continue
        began = time.monotonic()
        with pytest.raises(WeightTransferFailed) as failure:
            manager.update_weights(2)  # in which the other trainer hangs
        assert time.monotonic() - began < 60.0
        assert f"did not reach the rollout servers: {cause}" in str(failure.value)
        assert "\n" not in str(failure.value)
        trainers.hangs = Sender.remote()
