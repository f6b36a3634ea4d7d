"""veRL's own manager of weight transfers, over Ray workers one of which hangs."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
import ray
from verl.checkpoint_engine import CheckpointEngineManager
from verl.workers.config import CheckpointEngineConfig

from speciarl.errors import WeightTransferStuck
from speciarl.training.weight_transfer import bound

HANGS_S = 600.0


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


@pytest.fixture
def senders() -> Iterator[Senders]:
    """Two that have started: what a test measures begins after that."""
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        started = Senders()
        ray.get(started.update_weights(1, "naive"))
        yield started
    finally:
        ray.shutdown()


def test_a_hung_sender_ends_the_wait_and_a_well_one_does_not(senders: Senders) -> None:
    manager = CheckpointEngineManager(CheckpointEngineConfig(backend="naive"), senders, [])
    bound(manager, 10.0)
    assert manager.update_weights(1) == {}
    began = time.monotonic()
    with pytest.raises(WeightTransferStuck):
        manager.update_weights(2)
    assert 10.0 <= time.monotonic() - began < 60.0
