"""What siblings share, on veRL's own agent loop and the laptop policy's real processor; server and queue are fakes."""

import asyncio
import io
from typing import Any

import pytest
import torch
from composed_run import compose_run
from omegaconf import DictConfig
from PIL import Image
from tensordict import NonTensorData
from verl.trainer.ppo.v1 import agent_loop_tq
from verl.utils.config import omega_conf_to_dataclass
from verl.utils.dataset.rl_dataset import get_dataset_class
from verl.workers.rollout.replica import TokenOutput

from speciarl.category import Category
from speciarl.config import load
from speciarl.reward.dynamic import rewards
from speciarl.training.agent_loop.shared_prompt import IMAGE_ONLY, STORED_COLUMNS, ImageFeatures
from speciarl.training.agent_loop.worker import GroupAgentLoopWorker
from speciarl.training.observability.rollout_samples import SampleBook, SampledGroup
from speciarl.training.observability.rollout_stats import RolloutStats
from speciarl.training.observability.stall_timer import SilenceClock, WaitClock
from speciarl.verdict import Pair, Source, Verdict

STOCK = agent_loop_tq.AgentLoopWorkerTQ.__ray_actor_class__
ANSWERS = ("<answer> dog face</answer>", "<answer> animal mammal</answer>", "no answer at all")


class FakeServer:
    """Says the n-th answer to the n-th request."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.images: list[Any] = []

    async def generate(self, image_data: Any, **kwargs: Any) -> TokenOutput:
        tokens = self._tokenizer.encode(ANSWERS[len(self.images)])
        self.images.append(image_data)
        return TokenOutput(token_ids=tokens, log_probs=[0.0] * len(tokens), num_preempted=0, extra_fields={})


class FakeVerifier:
    async def verify(self, pair: Pair) -> Verdict:
        return Verdict(
            Category.SPECIFIC if pair.prediction == pair.ground_truth else Category.GENERIC, 1.0, Source.LIVE
        )


class FakeQueue:
    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {}
        self.status: dict[str, str] = {}

    async def async_kv_put(self, key: str, partition_id: str, tag: dict[str, Any]) -> None:
        self.status[key] = tag["status"]

    async def async_kv_batch_put(self, keys: list[str], fields: Any, tags: Any, partition_id: str) -> None:
        for index, key in enumerate(keys):
            row = fields[index]
            values = {name: row.get(name) for name in row.keys()}  # noqa: SIM118 (a TensorDict)
            self.rows[key] = {n: v.data if isinstance(v, NonTensorData) else v for n, v in values.items()}


@pytest.fixture(scope="module")
def config() -> DictConfig:
    return compose_run("+recipe=[speciarl,laptop]", f"actor_rollout_ref.rollout.n={len(ANSWERS)}")


@pytest.fixture(scope="module")
def model(config: DictConfig) -> Any:
    return omega_conf_to_dataclass(config.actor_rollout_ref.model)


def prompt_row() -> dict[str, Any]:
    picture = Image.linear_gradient("L").convert("RGB").resize((56, 56))
    content = [{"type": "image", "image": picture}, {"type": "text", "text": "what is this?"}]
    return {
        "uid": "u",
        "agent_name": "single_turn_agent",
        "global_steps": 1,
        "raw_prompt": [{"role": "user", "content": content}],
        "reward_model": {"ground_truth": "dog face", "style": "verifier"},
        "data_source": "emoji/animals",
        "extra_info": {"sample_id": "s1"},
        "ability": "classification",
    }


def run(
    cls: Any,
    config: DictConfig,
    model: Any,
    monkeypatch: pytest.MonkeyPatch,
    samples: list[SampledGroup] | None = None,
) -> tuple[FakeQueue, FakeServer, int]:
    """All rollouts of one prompt; what was stored, the server and how often the processor ran."""
    queue, server, calls = FakeQueue(), FakeServer(model.tokenizer), [0]
    worker = object.__new__(cls)
    worker.config, worker.rollout_config = config, config.actor_rollout_ref.rollout
    worker.tokenizer, worker.hf_model_type = model.tokenizer, model.hf_config.model_type
    worker.processor, worker.tools = model.processor, []
    worker.dataset_cls, worker.mm_processor_kwargs = get_dataset_class(config.data), {}
    worker.llm_client, worker.reward_loop_worker_handles, worker.distillation_enabled = server, None, False
    worker._settings, worker._reward, worker._verifier = load(config), rewards, FakeVerifier()
    worker._groups, worker._samples = {}, SampleBook(every=1, per_step=1)
    worker._stats, worker._clocks = {False: RolloutStats()}, {False: WaitClock()}
    worker._silence, worker._recall = SilenceClock(), None
    stock_call = type(model.processor).__call__

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        return stock_call(self, *args, **kwargs)

    monkeypatch.setattr(agent_loop_tq, "tq", queue)
    monkeypatch.setattr(type(model.processor), "__call__", counted)
    trajectory = {"validate": False, "step": 1, "sample_index": 0, "rollout_n": 0}
    asyncio.run(asyncio.wait_for(worker._run_prompt(prompt_row(), {}, trajectory=trajectory), 60))
    monkeypatch.undo()
    if samples is not None:
        samples += worker._samples.drain()
    return queue, server, calls[0]


def by_response(queue: FakeQueue) -> dict[tuple[int, ...], dict[str, Any]]:
    """Which session gets which answer depends on who asks first."""
    return {tuple(row["responses"].tolist()): row for row in queue.rows.values()}


def test_rollouts_store_what_stock_verl_stores_and_share_the_work(
    config: DictConfig, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stock, stock_server, stock_calls = run(STOCK, config, model, monkeypatch)
    ours, server, calls = run(GroupAgentLoopWorker, config, model, monkeypatch)
    assert stock.status == ours.status == {"u": "finished"}
    assert stock.rows.keys() == ours.rows.keys() == {f"u_{session}_0" for session in range(len(ANSWERS))}
    expected, stored = by_response(stock), by_response(ours)
    assert len(expected) == len(ANSWERS)
    for response, theirs in expected.items():
        row = stored[response]
        for name in ("prompts", "responses", "response_mask", "input_ids", "position_ids", "rollout_log_probs"):
            assert torch.equal(row[name], theirs[name]), name
        assert row["multi_modal_inputs"].keys() == theirs["multi_modal_inputs"].keys()
        for name, value in theirs["multi_modal_inputs"].items():
            assert torch.equal(row["multi_modal_inputs"][name], value), name
    assert [image.tobytes() for [image] in server.images] == [image.tobytes() for [image] in stock_server.images]
    assert (stock_calls, calls) == (2 * len(ANSWERS), 2)


def test_no_image_and_no_unread_column_is_stored(
    config: DictConfig, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, _, _ = run(GroupAgentLoopWorker, config, model, monkeypatch)
    assert len(queue.rows) == len(ANSWERS)
    for row in queue.rows.values():
        assert set(STORED_COLUMNS) <= row.keys()
        assert not row.keys() & {"raw_prompt", "multi_modal_data", "extra_info", "ability"}
        assert row["extra_fields"]["reward_extra_info"]["sample_id"] == "s1"


def test_a_sampled_group_has_a_picture_of_its_image(
    config: DictConfig, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples: list[SampledGroup] = []
    run(GroupAgentLoopWorker, config, model, monkeypatch, samples)
    (group,) = samples
    assert group.thumbnail is not None
    picture = Image.open(io.BytesIO(group.thumbnail))
    assert (picture.format, picture.size) == ("JPEG", (56, 56))
    assert sorted(one.category for one in group.rollouts) == ["generic", "specific", "unparsable"]


@pytest.mark.parametrize(("names", "kept"), [(sorted(IMAGE_ONLY), True), (["pixel_values", "audio_features"], False)])
def test_features_that_may_depend_on_the_response_are_not_shared(names: list[str], kept: bool) -> None:
    features = ImageFeatures()
    features.cache(dict.fromkeys(names, 0))
    assert (features.value is not None) is kept
