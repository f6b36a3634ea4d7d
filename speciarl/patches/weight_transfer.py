"""Patches of veRL 0.9.1's weight transfer: an error of the receiver ends it, and is raised. See docs/patches.md."""

from collections.abc import Callable
from typing import Any

from speciarl.patches.board import Patch

VERL_VERSION = "0.9.1"

_RECEIVER_FAILURES = "https://github.com/verl-project/verl/pull/7366"

_READABLE, _WRITABLE = 1, 2  # zmq.POLLIN and zmq.POLLOUT
_LOOK_MS = 200
"""Milliseconds between two checks, by a sender that waits, whether its receiver has failed."""


class _WatchedSocket:
    """Socket of a weight sender whose waits end with the receiver's error: a receiver that failed never replies."""

    def __init__(self, socket: Any, receiver: Any) -> None:
        """`receiver`: the future of the call in which the rollout server receives."""
        self._socket = socket
        self._receiver = receiver

    def send_pyobj(self, content: Any) -> None:
        self._wait(_WRITABLE)
        self._socket.send_pyobj(content)

    def recv(self) -> Any:
        self._wait(_READABLE)
        return self._socket.recv()

    def close(self) -> None:
        self._socket.close()

    def _wait(self, event: int) -> None:
        while not self._socket.poll(_LOOK_MS, event):
            if self._receiver.done():
                self._receiver.result()


def _watch_receiver(vllm_rollout: Any) -> None:
    adapter, sender = vllm_rollout.ServerAdapter, vllm_rollout.BucketedWeightSender
    execute, send, init_socket = adapter._execute_method, sender.async_send_weights, sender._init_socket
    if execute.__module__ == __name__:
        return
    receivers: dict[str, Any] = {}  # futures by socket name, from the receiver's call to the transfer that follows it

    async def _execute_method(self: Any, method: str, non_block: bool = False, **named: Any) -> Any:
        reply = await execute(self, method, non_block, **named)
        if non_block and reply is not None:  # None on ranks without a server
            receivers[self.zmq_handle] = reply.future()
        return reply

    async def async_send_weights(self: Any, weights: Any) -> None:
        self.receiver = receivers.pop(self.zmq_handle, None)
        try:
            await send(self, weights)
        except Exception:
            if self.receiver is not None and self.receiver.done():
                self.receiver.result()  # raises its error: the one caught may only be that of a clean-up after it
            raise

    def _init_socket(self: Any) -> None:
        init_socket(self)
        if self.receiver is not None:
            self.socket = _WatchedSocket(self.socket, self.receiver)

    adapter._execute_method = _execute_method
    sender.async_send_weights = async_send_weights
    sender._init_socket = _init_socket


WEIGHT_SENDER_WATCHES_RECEIVER = Patch(
    name="weight-sender-watches-receiver",
    distribution="verl",
    version=VERL_VERSION,
    module="verl.workers.rollout.vllm_rollout.vllm_rollout",
    reason="When a rollout server fails to load new weights, the trainer waits for its answer until the deadline "
    "(speciarl.training.weights_deadline_s), and the error is not told.",
    upstream=_RECEIVER_FAILURES,
    apply=_watch_receiver,
)


def _raise_first_error(bucketed_weight_transfer: Any) -> None:
    receiver = bucketed_weight_transfer.BucketedWeightReceiver
    stock = receiver.receive_weights
    if stock.__module__ == __name__:
        return

    def receive_weights(self: Any, on_bucket_received: Callable[..., None]) -> None:
        errors: list[Exception] = []

        def load(*bucket: Any) -> None:
            try:
                on_bucket_received(*bucket)
            except Exception as error:
                errors.append(error)
                raise

        try:
            stock(self, load)
        except BufferError:
            # veRL's clean-up cannot close shared memory of which the first error's traceback still holds tensors.
            if self.socket is not None:  # left open, it would take the messages of the next transfer
                self.socket.close()
            if errors:
                raise errors[0] from None
            raise

    receiver.receive_weights = receive_weights


WEIGHT_RECEIVER_TELLS_ITS_ERROR = Patch(
    name="weight-receiver-tells-its-error",
    distribution="verl",
    version=VERL_VERSION,
    module="verl.workers.rollout.vllm_rollout.bucketed_weight_transfer",
    reason="An error of loading new weights that came through shared memory is told as a BufferError of tidying up.",
    upstream=_RECEIVER_FAILURES,
    apply=_raise_first_error,
)

ALL = (WEIGHT_SENDER_WATCHES_RECEIVER, WEIGHT_RECEIVER_TELLS_ITS_ERROR)
"""Patches for every process that imports veRL."""
