"""Patches of veRL 0.9.1 that every run needs, with or without an accelerator. See docs/patches.md."""

import hashlib
import logging
import os
from collections.abc import Callable, MutableMapping
from types import SimpleNamespace
from typing import Any

from speciarl.patches import weight_transfer
from speciarl.patches.board import Patch

VERL_VERSION = "0.9.1"

# Axes of M-RoPE position ids, counted with the batch axis: (batch, rope components, tokens). Tokens are the ragged one.
_TOKEN_AXIS = 2
_COMPONENT_AXIS = 1


def _is_component_ragged(position_ids: Any) -> bool:
    """Whether ``as_nested_tensor`` made the rope components the ragged axis, in place of the tokens.

    It does so when all samples have one shape (components C, tokens T), a batch of one included. Buffer and offsets:

    - tokens ragged (wanted):     values (C, sum of T), offsets end at the sum of T;
    - components ragged (wrong):  values (B * C, T), offsets C, 2C, ... B * C.

    Offsets that end at the first dimension of the buffer therefore mean the wrong layout. In a square buffer they
    end at both; it is the wrong layout then as well, unless there is one sample (where both hold the same data):
    the wanted one would have to hold C = 3 or 4 tokens in the whole batch.
    """
    values, offsets = position_ids.values(), position_ids.offsets()
    batch, end = len(offsets) - 1, int(offsets[-1])
    rows, columns = values.shape
    return bool(rows == end and (columns != end or batch > 1))


def _fix_equal_length_mrope(tensordict_utils: Any) -> None:
    if tensordict_utils.maybe_fix_3d_position_ids.__module__ == __name__:
        return  # applied before; others may have imported it by name since

    def maybe_fix_3d_position_ids(data: Any) -> None:
        """Give nested M-RoPE position ids of shape (batch, components, tokens) tokens as the ragged axis, in place."""
        position_ids = data.get("position_ids", None)
        if position_ids is None or position_ids.dim() != 3 or not position_ids.is_nested:
            return
        if not _is_component_ragged(position_ids):
            # The layout is right, but pickling a tensordict loses the axis (what veRL's own function is for).
            position_ids._ragged_idx = _TOKEN_AXIS
            return
        # Declared as the buffer is really laid out, so that `unbind` reads it right.
        position_ids._ragged_idx = _COMPONENT_AXIS
        fixed = tensordict_utils.nested_tensor_from_tensor_list(list(position_ids.unbind()), ragged_idx=_TOKEN_AXIS)
        if data.is_locked:
            with data.unlock_():
                data["position_ids"] = fixed
        else:
            data["position_ids"] = fixed

    tensordict_utils.maybe_fix_3d_position_ids = maybe_fix_3d_position_ids


EQUAL_LENGTH_MROPE = Patch(
    name="equal-length-mrope",
    distribution="verl",
    version=VERL_VERSION,
    module="verl.utils.tensordict_utils",
    reason="Training of models with M-RoPE stops (split_with_sizes) as soon as all sequences of a batch are equally "
    "long, as they are with constant prompts and images of one size.",
    upstream="https://github.com/verl-project/verl/issues/7899",
    apply=_fix_equal_length_mrope,
)


class _NoFlush(logging.LoggerAdapter[logging.Logger]):
    """Logger that accepts ``flush``, as ``print`` does and loggers do not."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        kwargs.pop("flush", None)
        return msg, kwargs


def _accept_flush(trainer_separate_async: Any) -> None:
    if not isinstance(trainer_separate_async.logger, _NoFlush):
        trainer_separate_async.logger = _NoFlush(trainer_separate_async.logger)


ROLLOUT_ON_ITS_OWN = Patch(
    name="rollout-on-its-own",
    distribution="verl",
    version=VERL_VERSION,
    module="verl.trainer.ppo.v1.trainer_separate_async",
    reason="recipe/mode=separate_async stops at its start (TypeError: unexpected keyword argument 'flush'), because a "
    "log call that is reached with hybrid_engine=False was meant for print.",
    upstream="verl/trainer/ppo/v1/trainer_separate_async.py, PPOTrainerSeparateAsync._setup",
    apply=_accept_flush,
)


def _unpack_vision_output(qwen2_vl: Any) -> None:
    stock = qwen2_vl._get_input_embeds
    if stock.__module__ == __name__:
        return

    def _get_input_embeds(
        model: Any, input_ids: Any, attention_mask: Any, pixel_values: Any, pixel_values_videos: Any, *grids: Any
    ) -> Any:
        """veRL's function, with a vision tower whose output is unpacked where veRL does not: without an image."""
        if pixel_values is None and pixel_values_videos is None:
            tower = model.visual
            model = SimpleNamespace(
                config=model.config,
                get_input_embeddings=model.get_input_embeddings,
                visual=lambda pixels, grid_thw: qwen2_vl.unpack_visual_output(tower(pixels, grid_thw=grid_thw))[0],
            )
        return stock(model, input_ids, attention_mask, pixel_values, pixel_values_videos, *grids)

    qwen2_vl._get_input_embeds = _get_input_embeds


MICRO_BATCH_WITHOUT_IMAGE = Patch(
    name="micro-batch-without-image",
    distribution="verl",
    version=VERL_VERSION,
    module="verl.models.transformers.qwen2_vl",
    reason="A step that loses rollouts is filled up with rows of text, and Qwen2.5-VL stops (no attribute 'mean') at a "
    "micro-batch of nothing but these.",
    upstream="verl/models/transformers/qwen2_vl.py, _get_input_embeds",
    apply=_unpack_vision_output,
)

# Trainer and rollout server of a device meet at a socket in /tmp whose name holds the Ray job: in the trainer's process
# as an attribute, in the server's as this variable, which its engine processes inherit.
_JOB_VARIABLE = "VERL_RAY_JOB_ID"


def job_of_cluster(context: Any) -> str:
    """Name of a Ray job that is unique among all clusters of a machine. `context` is Ray's runtime context.

    Ray counts jobs anew in each cluster: two runs that each started their own Ray are both job 01000000.
    """
    cluster = hashlib.blake2b(context.gcs_address.encode(), digest_size=4).hexdigest()
    return f"{context.get_job_id()}-{cluster}"


def _name_cluster_in_sender(vllm_rollout: Any) -> None:
    def name_cluster(adapter: Any) -> None:
        context = vllm_rollout.ray.get_runtime_context()
        # veRL computed the name in its constructor, and binds the socket only when it sends.
        before, job, after = adapter.zmq_handle.partition(context.get_job_id())
        if not job:
            raise RuntimeError(f"the weight transfer's socket {adapter.zmq_handle} does not name its Ray job")
        adapter.zmq_handle = before + job_of_cluster(context) + after

    _after_init(vllm_rollout.ServerAdapter, name_cluster)


def _name_cluster_in_receiver(vllm_async_server: Any) -> None:
    def name_cluster(_: Any) -> None:
        os.environ[_JOB_VARIABLE] = job_of_cluster(vllm_async_server.ray.get_runtime_context())

    _after_init(vllm_async_server.vLLMHttpServer, name_cluster)


def _after_init(owner: Any, call: Callable[[Any], None]) -> None:
    """Add a call at the end of a class's constructor; idempotent."""
    stock = owner.__init__
    if stock.__module__ == __name__:
        return

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        stock(self, *args, **kwargs)
        call(self)

    __init__.__wrapped__ = stock  # type: ignore[attr-defined]  # Ray reads the signature
    owner.__init__ = __init__


_SHARED_SOCKET = (
    "Two runs on one machine, each with a Ray of its own, send their weights through one socket: both hang, or one "
    "generates with the weights of the other."
)
_JOB_IN_SOCKET = "https://github.com/verl-project/verl/pull/6246"

WEIGHT_SENDER_NAMES_CLUSTER = Patch(
    name="weight-sender-names-cluster",
    distribution="verl",
    version=VERL_VERSION,
    module="verl.workers.rollout.vllm_rollout.vllm_rollout",
    reason=_SHARED_SOCKET,
    upstream=_JOB_IN_SOCKET,
    apply=_name_cluster_in_sender,
)
WEIGHT_RECEIVER_NAMES_CLUSTER = Patch(
    name="weight-receiver-names-cluster",
    distribution="verl",
    version=VERL_VERSION,
    module="verl.workers.rollout.vllm_rollout.vllm_async_server",
    reason=_SHARED_SOCKET,
    upstream=_JOB_IN_SOCKET,
    apply=_name_cluster_in_receiver,
)

ALL = (
    EQUAL_LENGTH_MROPE,
    ROLLOUT_ON_ITS_OWN,
    MICRO_BATCH_WITHOUT_IMAGE,
    WEIGHT_SENDER_NAMES_CLUSTER,
    WEIGHT_RECEIVER_NAMES_CLUSTER,
    *weight_transfer.ALL,
)
"""Patches for every process that imports veRL."""
