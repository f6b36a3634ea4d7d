"""The patches of veRL 0.9.1: what goes wrong without them, and what they leave alone; see docs/patches.md."""

import importlib.util
import inspect
import logging
import os
from types import ModuleType, SimpleNamespace

import pytest
import torch
import verl.utils.tensordict_utils as installed
from hypothesis import given, settings
from hypothesis import strategies as st
from tensordict import TensorDict

from speciarl.patches import verl as verl_patches


@pytest.fixture(scope="module")
def shipped() -> ModuleType:
    """veRL's module as its file defines it: `import verl` has patched the installed one already."""
    spec = importlib.util.spec_from_file_location("tensordict_utils_as_shipped", str(installed.__file__))
    assert spec is not None
    assert spec.loader is not None
    copy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(copy)
    return copy


@pytest.fixture(scope="module")
def patched(shipped: ModuleType) -> ModuleType:
    spec = importlib.util.spec_from_file_location("tensordict_utils_patched", str(installed.__file__))
    assert spec is not None
    assert spec.loader is not None
    copy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(copy)
    verl_patches.EQUAL_LENGTH_MROPE.apply(copy)
    return copy


def samples(lengths: list[int], components: int = 4) -> list[torch.Tensor]:
    """Position ids of shape (components, tokens), all values different."""
    start, result = 0, []
    for length in lengths:
        result.append(torch.arange(start, start + components * length).view(components, length))
        start += components * length
    return result


def batch(tensors: list[torch.Tensor]) -> TensorDict:
    """As TransferQueue hands samples to the workers."""
    nested = torch.nested.as_nested_tensor(tensors, layout=torch.jagged)
    return TensorDict({"position_ids": nested}, batch_size=[len(tensors)])


def assert_holds(data: TensorDict, tensors: list[torch.Tensor], utils: ModuleType) -> None:
    got = data["position_ids"]
    assert got._ragged_idx == 2
    assert [tuple(one.shape) for one in got.unbind()] == [tuple(one.shape) for one in tensors]
    assert all(torch.equal(one, other) for one, other in zip(got.unbind(), tensors, strict=True))
    order = list(reversed(range(len(tensors))))
    picked = utils.index_select_tensor_dict(data, order)["position_ids"].unbind()
    assert all(torch.equal(one, tensors[index]) for one, index in zip(picked, order, strict=True))


@pytest.mark.parametrize("lengths", [[8, 8, 8], [8], [5, 5]])
def test_verl_stops_on_equal_lengths_without_the_patch(shipped: ModuleType, lengths: list[int]) -> None:
    data = batch(samples(lengths))
    shipped.maybe_fix_3d_position_ids(data)
    with pytest.raises(RuntimeError, match=r"split_with_sizes|Expected cond to be True"):
        data["position_ids"].unbind()


# 8 samples of 32 tokens: a square buffer, in which the offsets end at both dimensions.
@pytest.mark.parametrize("lengths", [[8, 8, 8], [8], [5, 5], [4], [4, 4], [32] * 8, [7, 9, 8], [1, 2]])
def test_patched_function_keeps_every_sample(patched: ModuleType, lengths: list[int]) -> None:
    tensors = samples(lengths)
    data = batch(tensors)
    patched.maybe_fix_3d_position_ids(data)
    assert_holds(data, tensors, patched)


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.one_of(
        st.lists(st.integers(1, 40), min_size=1, max_size=12),
        st.builds(lambda length, count: [length] * count, st.integers(1, 40), st.integers(1, 12)),
    ),
    components=st.sampled_from([3, 4]),
    repeats=st.integers(1, 3),
)
def test_any_batch(patched: ModuleType, lengths: list[int], components: int, repeats: int) -> None:
    tensors = samples(lengths, components)
    data = batch(tensors)
    for _ in range(repeats):  # workers call it on the batch and again on each mini-batch
        patched.maybe_fix_3d_position_ids(data)
    if len(lengths) > 1 and sum(lengths) == components:
        return  # as many tokens in the whole batch as components: no training batch, and not told apart
    assert_holds(data, tensors, patched)


@pytest.mark.parametrize("lengths", [[8, 8, 8], [7, 9, 8]])
def test_axis_lost_in_transit_is_restored(patched: ModuleType, lengths: list[int]) -> None:
    tensors = samples(lengths)
    data = batch(tensors)
    patched.maybe_fix_3d_position_ids(data)
    data["position_ids"]._ragged_idx = 1  # what pickling a consolidated tensordict does
    patched.maybe_fix_3d_position_ids(data)
    assert_holds(data, tensors, patched)


def test_locked_tensordict_stays_locked(patched: ModuleType) -> None:
    tensors = samples([6, 6])
    data = batch(tensors)
    data.lock_()
    patched.maybe_fix_3d_position_ids(data)
    assert data.is_locked
    assert_holds(data, tensors, patched)


def test_everything_else_is_left_alone(patched: ModuleType) -> None:
    flat = torch.nested.as_nested_tensor([torch.arange(3), torch.arange(5)], layout=torch.jagged)
    dense = torch.arange(24).view(2, 3, 4)
    for data in (
        TensorDict({"position_ids": flat}, batch_size=[2]),
        TensorDict({"position_ids": dense}, batch_size=[2]),
        TensorDict({"input_ids": dense}, batch_size=[2]),
    ):
        before = dict(data.items())
        patched.maybe_fix_3d_position_ids(data)
        assert all(data[key] is value for key, value in before.items())


def test_applying_twice_changes_nothing(patched: ModuleType) -> None:
    once = patched.maybe_fix_3d_position_ids
    verl_patches.EQUAL_LENGTH_MROPE.apply(patched)
    assert patched.maybe_fix_3d_position_ids is once


def test_importing_verl_applies_it_everywhere() -> None:
    from verl.workers.engine import base

    assert installed.maybe_fix_3d_position_ids.__module__ == "speciarl.patches.verl"
    assert base.maybe_fix_3d_position_ids is installed.maybe_fix_3d_position_ids


def test_a_log_call_with_flush_is_taken_and_no_other_is_changed(caplog: pytest.LogCaptureFixture) -> None:
    module = ModuleType("trainer_separate_async")
    module.logger = logging.getLogger("separate")  # type: ignore[attr-defined]
    module.logger.setLevel(logging.INFO)
    with pytest.raises(TypeError, match="flush"):
        module.logger.info("rollout served by %d replicas", 2, flush=True)
    verl_patches.ROLLOUT_ON_ITS_OWN.apply(module)
    verl_patches.ROLLOUT_ON_ITS_OWN.apply(module)
    module.logger.info("rollout served by %d replicas", 2, flush=True)
    module.logger.info("switching")
    assert caplog.messages == ["rollout served by 2 replicas", "switching"]


def test_the_patched_trainer_still_has_that_call() -> None:
    from verl.trainer.ppo.v1 import trainer_separate_async

    assert "flush=True" in inspect.getsource(trainer_separate_async.PPOTrainerSeparateAsync._setup)
    assert isinstance(trainer_separate_async.logger, logging.LoggerAdapter)


class RayContext:
    """Stand-in for Ray's runtime context of the first job of a cluster."""

    def __init__(self, gcs_address: str) -> None:
        self.gcs_address = gcs_address

    def get_job_id(self) -> str:
        return "01000000"


def weight_transfer(monkeypatch: pytest.MonkeyPatch, gcs_address: str) -> tuple[str, str]:
    """The sockets that a trainer binds and its rollout server connects to, as veRL names them, in a cluster.

    Stand-ins for both classes; end-to-end tests, of which two run at a time, train with the real ones.
    """
    ray = SimpleNamespace(get_runtime_context=lambda: RayContext(gcs_address))

    class ServerAdapter:
        def __init__(self) -> None:
            self.zmq_handle = (
                f"ipc:///tmp/rl-colocate-zmq-{ray.get_runtime_context().get_job_id()}-replica-0-rank-0.sock"
            )

    class vLLMHttpServer:
        def __init__(self) -> None:
            monkeypatch.setenv("VERL_RAY_JOB_ID", ray.get_runtime_context().get_job_id())

    for _ in range(2):  # patches bear being applied twice
        verl_patches.WEIGHT_SENDER_NAMES_CLUSTER.apply(SimpleNamespace(ray=ray, ServerAdapter=ServerAdapter))
        verl_patches.WEIGHT_RECEIVER_NAMES_CLUSTER.apply(SimpleNamespace(ray=ray, vLLMHttpServer=vLLMHttpServer))
    bound = ServerAdapter().zmq_handle
    vLLMHttpServer()
    return bound, f"ipc:///tmp/rl-colocate-zmq-{os.environ['VERL_RAY_JOB_ID']}-replica-0-rank-0.sock"


def test_weights_of_two_clusters_go_separate_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    sockets = [weight_transfer(monkeypatch, address) for address in ("10.0.0.1:6379", "10.0.0.1:40001")]
    for bound, connected in sockets:
        assert bound == connected
    assert sockets[0] != sockets[1]
    assert weight_transfer(monkeypatch, "10.0.0.1:6379") == sockets[0]


def test_a_socket_that_names_no_job_is_refused() -> None:
    class ServerAdapter:
        def __init__(self) -> None:
            self.zmq_handle = "ipc:///tmp/rl-colocate-zmq-replica-0-rank-0.sock"

    ray = SimpleNamespace(get_runtime_context=lambda: RayContext("10.0.0.1:6379"))
    verl_patches.WEIGHT_SENDER_NAMES_CLUSTER.apply(SimpleNamespace(ray=ray, ServerAdapter=ServerAdapter))
    with pytest.raises(RuntimeError, match="does not name its Ray job"):
        ServerAdapter()
