"""Weight transfer over gloo, from the trainer to rollout servers in other processes.

veRL's own backends of this kind need CUDA or a network library that does. Named in
``actor_rollout_ref.rollout.checkpoint_engine``, which imports this module wherever the backend is used.
Interface: verl/checkpoint_engine/base.py of veRL 0.9.1.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Iterator
from datetime import timedelta
from typing import Any

import ray
import torch
from torch import distributed
from verl.checkpoint_engine import CheckpointEngine, CheckpointEngineRegistry

_torch: Any = distributed  # its stubs lack most of what is used here

BACKEND = "gloo"
DEADLINE = timedelta(minutes=10)
"""Deadline for all ranks to connect, and for each message."""
SENDER = 0
"""Rank of the one trainer process that sends. Its siblings only take part in gathering sharded weights."""

Weight = tuple[str, torch.Tensor]
Address = tuple[str, int]


@CheckpointEngineRegistry.register(BACKEND)
class GlooCheckpointEngine(CheckpointEngine):
    """Checkpoint engine that broadcasts weights in buckets, each as a header (JSON) and one flat buffer."""

    def __init__(self, bucket_size: int, is_master: bool = False) -> None:
        """`bucket_size`: bytes gathered before they are sent; a larger weight is sent alone."""
        self._bucket_size = bucket_size
        self._is_master = is_master
        self._store: Any = None
        self._group: Any = None

    def prepare(self) -> Address | None:
        """Address of the sender's TCP store, at which all ranks connect; None for every other process."""
        if not self._is_master:
            return None
        host = ray.util.get_node_ip_address().strip("[]")  # as veRL does: an IPv6 address may come in brackets
        self._store = _torch.TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=DEADLINE)
        return host, self._store.port

    @classmethod
    def build_topology(
        cls, actor_wg_world_size: int, rollout_world_size: int, metadata: list[Any]
    ) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
        """See veRL: the arguments of `init_process_group` for each trainer process and each rollout process."""
        world_size = 1 + rollout_world_size

        def arguments(ranks: list[int]) -> dict[str, list[Any]]:
            return {
                "rank": ranks,
                "world_size": [world_size] * len(ranks),
                "address": [metadata[SENDER]] * len(ranks),
            }

        actors = [SENDER] + [-1] * (actor_wg_world_size - 1)
        return arguments(actors), arguments(list(range(1, world_size)))

    def init_process_group(self, rank: int, world_size: int, address: Address) -> None:
        """Connect to the other ranks; a process of rank -1 stays out."""
        if rank < 0:
            return
        host, port = address
        self._store = self._store or _torch.TCPStore(host, port, is_master=False, timeout=DEADLINE)
        self._group = _torch.ProcessGroupGloo(_torch.PrefixStore("weights", self._store), rank, world_size, DEADLINE)

    def finalize(self) -> None:
        """Leave the process group; the next transfer forms a new one."""
        self._group = self._store = None

    async def send_weights(self, weights: Iterable[Weight], global_steps: int | None = None) -> None:
        """Send all weights. A process outside the group only iterates over them, as gathering shards is collective."""
        for bucket in _buckets(weights, self._bucket_size):
            if self._group is not None:
                header = json.dumps([(name, list(one.shape), _name(one.dtype)) for name, one in bucket]).encode()
                data = torch.cat([one.detach().cpu().contiguous().view(-1).view(torch.uint8) for _, one in bucket])
                await self._broadcast(torch.tensor([len(header), len(data)]))
                await self._broadcast(torch.frombuffer(bytearray(header), dtype=torch.uint8))
                await self._broadcast(data)
        if self._group is not None:  # a header of no bytes: the end
            await self._broadcast(torch.tensor([0, 0]))

    async def receive_weights(self, global_steps: int | None = None) -> AsyncIterator[Weight]:
        """Weights, in the order in which they were sent."""
        while True:
            sizes = await self._broadcast(torch.zeros(2, dtype=torch.int64))
            if not sizes[0]:
                return
            header = await self._broadcast(torch.empty(int(sizes[0]), dtype=torch.uint8))
            data = await self._broadcast(torch.empty(int(sizes[1]), dtype=torch.uint8))
            start = 0
            for name, shape, dtype in json.loads(bytes(header.tolist())):
                kind = getattr(torch, dtype)
                end = start + torch.Size(shape).numel() * kind.itemsize
                yield name, data[start:end].clone().view(kind).view(shape)  # a clone is aligned
                start = end

    async def _broadcast(self, tensor: torch.Tensor) -> torch.Tensor:
        assert self._group is not None, "weights are received by members of the group only"
        # In a thread: the call blocks, and this event loop serves other calls of the actor.
        await asyncio.to_thread(self._group.broadcast(tensor, SENDER).wait)
        return tensor


def _buckets(weights: Iterable[Weight], size: int) -> Iterator[list[Weight]]:
    bucket: list[Weight] = []
    filled = 0
    for name, weight in weights:
        if bucket and filled + weight.nbytes > size:
            yield bucket
            bucket, filled = [], 0
        bucket.append((name, weight))
        filled += weight.nbytes
    if bucket:
        yield bucket


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
