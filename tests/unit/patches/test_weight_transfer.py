"""The patches of veRL's weight transfer, on stand-ins; tests/integration/test_weight_transfer.py has the real ones."""

import asyncio
import io
import math
from collections.abc import Callable
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest

from speciarl.patches import weight_transfer


class WeightSocket:
    """Of a sender whose receiver is ready at the first `in_time` looks, and then at the `ready_at`-th, if ever."""

    def __init__(self, ready_at: float, in_time: int = 0, tidying: Exception | None = None) -> None:
        self.ready_at = ready_at
        self.in_time = in_time
        self.tidying = tidying
        self.looks = 0
        self.sent: list[object] = []

    def poll(self, timeout_ms: int, event: int) -> int:
        self.looks += 1
        return event if self.looks <= self.in_time or self.looks >= self.ready_at else 0

    def send_pyobj(self, content: object) -> None:
        self.sent.append(content)

    def recv(self) -> bytes:
        return b""

    def tidy(self) -> None:
        if self.tidying is not None:
            raise self.tidying


def transfer(socket: WeightSocket, receiver: Future[None], has_server: bool = True) -> Any:
    """The socket that a sender with the patch sent one bucket over, or its error. The classes are stand-ins."""

    class Reference:
        def future(self) -> Future[None]:
            return receiver

    class ServerAdapter:
        zmq_handle = "ipc:///tmp/weights.sock"

        async def _execute_method(self, method: str, non_block: bool = False, kwargs: Any = None) -> Any:
            if not has_server:
                return None
            return Reference() if non_block else f"{method} has run"

    class BucketedWeightSender:
        zmq_handle = ServerAdapter.zmq_handle
        socket: Any

        def _init_socket(self) -> None:
            self.socket = socket

        async def async_send_weights(self, weights: list[object]) -> None:
            self._init_socket()
            try:
                for bucket in weights:
                    self.socket.send_pyobj(bucket)
                    assert self.socket.recv() == b""
            finally:
                socket.tidy()

    module = SimpleNamespace(ServerAdapter=ServerAdapter, BucketedWeightSender=BucketedWeightSender)
    for _ in range(2):
        weight_transfer.WEIGHT_SENDER_WATCHES_RECEIVER.apply(module)
    adapter, sender = ServerAdapter(), BucketedWeightSender()
    if has_server:
        assert asyncio.run(adapter._execute_method("sleep", kwargs={})) == "sleep has run"
    asyncio.run(adapter._execute_method("update_weights_from_ipc", non_block=True, kwargs={}))
    asyncio.run(sender.async_send_weights(["bucket"]))
    return sender.socket


def test_a_sender_waits_for_a_receiver_that_is_slow_or_has_just_ended() -> None:
    ended: Future[None] = Future()
    ended.set_result(None)  # a receiver that has answered may end before its answer is read
    for receiver in (Future[None](), ended):
        socket = WeightSocket(ready_at=5)
        assert transfer(socket, receiver) is not socket
        assert socket.sent == ["bucket"]
        assert socket.looks == 6


@pytest.mark.parametrize("in_time", [0, 1])  # the receiver takes no bucket, or does not answer to it
@pytest.mark.parametrize("tidying", [None, FileNotFoundError("the memory went with the receiver")])
def test_a_sender_stops_waiting_for_a_receiver_that_failed(in_time: int, tidying: Exception | None) -> None:
    receiver: Future[None] = Future()
    receiver.set_exception(ValueError("no such weight"))
    socket = WeightSocket(ready_at=math.inf, in_time=in_time, tidying=tidying)
    with pytest.raises(ValueError, match="no such weight"):
        transfer(socket, receiver)
    assert len(socket.sent) == in_time


def test_a_senders_own_error_is_told() -> None:
    with pytest.raises(FileNotFoundError, match="no memory"):
        transfer(WeightSocket(ready_at=1, tidying=FileNotFoundError("no memory")), Future())


def test_a_sender_whose_adapter_has_no_server_is_left_alone() -> None:
    """As the ranks of tensor parallelism but the first."""
    socket = WeightSocket(ready_at=math.inf)
    assert transfer(socket, Future(), has_server=False) is socket
    assert (socket.sent, socket.looks) == (["bucket"], 0)


def receiver_that_ends_with(error: Exception | None) -> Any:
    """A patched receiver which raises `error`, if any, in tidying up."""

    class BucketedWeightReceiver:
        def __init__(self) -> None:
            self.socket: Any = io.BytesIO()

        def receive_weights(self, on_bucket_received: Callable[..., None]) -> None:
            try:
                on_bucket_received(["weight"], True)
            finally:
                if error is not None:
                    raise error

    for _ in range(2):
        module = SimpleNamespace(BucketedWeightReceiver=BucketedWeightReceiver)
        weight_transfer.WEIGHT_RECEIVER_TELLS_ITS_ERROR.apply(module)
    return BucketedWeightReceiver()


def test_a_receiver_tells_why_a_weight_was_refused_and_not_what_came_of_it() -> None:
    def refuse(weights: list[str], is_last: bool) -> None:
        raise ValueError(f"{weights} refused")

    for tidying in (BufferError("pointers exist"), None):
        receiver = receiver_that_ends_with(tidying)
        with pytest.raises(ValueError, match="refused"):
            receiver.receive_weights(on_bucket_received=refuse)
        assert receiver.socket.closed is (tidying is not None)


def test_a_receivers_other_errors_are_its_own() -> None:
    taken: list[Any] = []
    receiver_that_ends_with(None).receive_weights(on_bucket_received=lambda *bucket: taken.append(bucket))
    assert taken == [(["weight"], True)]
    for tidying in (BufferError("pointers exist"), OSError("gone")):
        with pytest.raises(type(tidying), match=str(tidying)):
            receiver_that_ends_with(tidying).receive_weights(on_bucket_received=lambda *bucket: None)
