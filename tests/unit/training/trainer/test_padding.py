"""Rows of padding in a batch that lost rollouts: where they stand, and what veRL's own engine makes of them."""

import functools
import importlib.util
import math
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from tensordict import TensorDict
from torch import distributed
from transfer_queue import KVBatchMeta
from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl
from transformers.models.qwen2_vl import modeling_qwen2_vl
from verl.models.transformers import qwen2_vl
from verl.trainer.config import CheckpointConfig
from verl.trainer.ppo import padding_utils
from verl.utils import tensordict_utils as tu
from verl.workers.config import (
    FSDPActorConfig,
    FSDPEngineConfig,
    FSDPOptimizerConfig,
    HFModelConfig,
    PolicyLossConfig,
)
from verl.workers.engine import EngineRegistry
from verl.workers.utils.losses import ppo_loss

from speciarl.laptop.checkpoint import shipped
from speciarl.laptop.policy.model import GRID
from speciarl.laptop.policy.runner import patches, prompt_ids
from speciarl.training.trainer import padding, trainer

MODES = (trainer.SpeciaRLTrainer, trainer.SpeciaRLColocateAsyncTrainer, trainer.SpeciaRLSeparateAsyncTrainer)
RANKS, MINI_BATCH, ROLLOUTS = 2, 4, 4


def tag(is_padding: bool, tokens: int = 60) -> dict[str, Any]:
    return {"seq_len": tokens} | ({"is_padding": True} if is_padding else {})


@given(st.integers(1, 4), st.integers(1, 40), st.integers(0, 40), st.integers(1, 8))
def test_every_stretch_of_a_share_has_its_part_of_the_padding(ranks: int, real: int, padded: int, length: int) -> None:
    tags = [tag(is_padding) for _ in range(ranks) for is_padding in [False] * real + [True] * padded]
    batch = KVBatchMeta(keys=[str(row) for row in range(len(tags))], tags=tags, partition_id="train")
    padding.spread(batch, ranks)
    share = real + padded
    for rank in range(ranks):
        mine = slice(rank * share, (rank + 1) * share)
        rows = [int(key) for key in batch.keys[mine]]
        assert sorted(rows) == list(range(rank * share, (rank + 1) * share))
        kept = [row for row in rows if not tags[row].get("is_padding")]
        assert kept == sorted(kept)
        kinds = [one.get("is_padding", False) for one in batch.tags[mine]]
        for first in range(0, share - length + 1):
            assert abs(sum(kinds[first : first + length]) - length * padded / share) <= 1.5


@pytest.mark.parametrize("mode", MODES)
def test_no_mini_batch_and_no_micro_batch_is_all_padding(
    mode: type[trainer.VerdictTrainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """veRL's own filling and balancing. Of 64 rollouts, four mini-batches for two ranks, 12 are lost."""
    rows: dict[str, Any] = {}
    queue = SimpleNamespace(
        kv_batch_get=lambda keys, partition_id: [{"uid": "g", "position_ids": torch.arange(60)}],
        kv_batch_put=lambda keys, partition_id, fields, tags: rows.update(zip(keys, tags, strict=True)),
    )
    monkeypatch.setattr(padding_utils, "tq", queue)
    one = object.__new__(mode)
    one._uids = None
    one.global_steps = 1
    one.use_critic = False
    one.tokenizer = SimpleNamespace(eos_token_id=0)
    one.actor_rollout_wg = SimpleNamespace(_dispatch_info={"actor": list(range(RANKS))})
    sizes = {"actor": {"ppo_mini_batch_size": MINI_BATCH}, "rollout": {"n": ROLLOUTS}}
    one.config = OmegaConf.create({"actor_rollout_ref": sizes, "trainer": {"critic_warmup": 0}})
    tags = [tag(False, 150 + 7 * row % 31) for row in range(52)]
    keys = [f"g{row}_0_0" for row in range(52)]
    batch = one._balance_batch(KVBatchMeta(keys=keys, tags=tags, partition_id="train"), metrics={})
    assert len(rows) == 12
    assert sorted(batch.keys) == sorted([*keys, *rows])
    kinds = [one.get("is_padding", False) for one in batch.tags]
    per_rank = MINI_BATCH * ROLLOUTS // RANKS
    assert {sum(kinds[at : at + per_rank]) for at in range(0, 64, per_rank)} == {1, 2}
    assert all(sum(kinds[at : at + 2]) < 2 for at in range(0, 64, 2))


@pytest.fixture(scope="module")
def engine() -> Iterator[Any]:
    """veRL's FSDP engine with the laptop's policy, in a world of one."""
    with pytest.MonkeyPatch.context() as patch:
        for library in (modeling_qwen2_5_vl.Qwen2_5_VLModel, modeling_qwen2_5_vl.Qwen2_5_VLForConditionalGeneration):
            patch.setattr(library, "forward", library.forward)  # veRL replaces these for the whole process
        for library in (modeling_qwen2_vl.Qwen2VLModel, modeling_qwen2_vl.Qwen2VLForConditionalGeneration):
            patch.setattr(library, "forward", library.forward)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # as in runs; more wait for each other
        distributed.init_process_group("cpu:gloo", store=distributed.HashStore(), rank=0, world_size=1)
        try:
            exact = {"param_dtype": "fp32", "reduce_dtype": "fp32", "buffer_dtype": "fp32"}
            settings = FSDPEngineConfig(
                strategy="fsdp2", model_dtype="fp32", dtype="float32", mixed_precision=exact, use_torch_compile=False
            )
            one = EngineRegistry.new(
                model_type="language_model",
                backend="fsdp2",
                model_config=HFModelConfig(
                    path=str(shipped("policy")),
                    use_remove_padding=False,
                    override_config={"attn_implementation": "sdpa"},
                ),
                engine_config=settings,
                optimizer_config=FSDPOptimizerConfig(lr=0.0, clip_grad=math.inf, total_training_steps=1),
                checkpoint_config=CheckpointConfig(),
            )
            one.initialize()
            yield one
        finally:
            distributed.destroy_process_group()
            torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def rollouts(engine: Any) -> list[dict[str, Any]]:
    """Three, of different lengths, as TransferQueue has them."""
    prompt = torch.tensor(prompt_ids(engine.model_config.tokenizer))
    return [rollout(engine.module, prompt, number) for number in range(3)]


def rollout(model: Any, prompt: Any, number: int) -> dict[str, Any]:
    draw = torch.Generator().manual_seed(number)
    tokens = 5 + number
    responses = torch.randint(0, 900, (tokens,), generator=draw)
    ids = torch.cat([prompt, responses])
    grid = torch.tensor([[1, GRID, GRID]])
    image = (ids == model.config.image_token_id).int()[None]
    axes, _ = model.model.get_rope_index(input_ids=ids[None], mm_token_type_ids=image, image_grid_thw=grid)
    mask = torch.ones_like(responses)
    picture = np.random.default_rng(number).integers(0, 255, (1, 56, 56, 3), dtype=np.uint8)
    return {
        "prompts": prompt,
        "responses": responses,
        "input_ids": ids,
        "position_ids": torch.cat([torch.arange(len(ids))[None], axes[:, 0]]),
        "response_mask": mask,
        "loss_mask": mask,
        "old_log_probs": torch.randn(tokens, generator=draw) * 0.1 - 3,
        "ref_log_prob": torch.randn(tokens, generator=draw) * 0.1 - 3,
        "advantages": torch.full((tokens,), number - 1.5),
        "multi_modal_inputs": {"pixel_values": patches(picture)[0], "image_grid_thw": grid},
    }


def filler(source: dict[str, Any]) -> dict[str, Any]:
    """veRL's row of padding, with what the trainer computes for it since."""
    row, marks = padding_utils.construct_minimal_padding_template(source, {}, eos_token_id=0)
    assert marks["is_padding"]
    nothing = {name: torch.zeros(1) for name in ("old_log_probs", "ref_log_prob", "advantages")}
    return {name: row[name] for name in source} | nothing


def batched(rows: list[dict[str, Any]], micro_batch: int) -> TensorDict:
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    data = tu.get_tensordict(
        {
            name: torch.nested.as_nested_tensor(column, layout=torch.jagged)
            if isinstance(column[0], torch.Tensor)
            else column
            for name, column in columns.items()
        }
    )
    tu.assign_non_tensor(
        data,
        micro_batch_size_per_gpu=micro_batch,
        global_batch_size=6,  # of the mini-batch, whatever was lost
        use_dynamic_bsz=False,
        use_remove_padding=False,
        use_fused_kernels=False,
        calculate_entropy=True,
        temperature=1.0,
    )
    return data


def update(engine: Any, rows: list[dict[str, Any]], micro_batch: int, loss: Callable[..., Any]) -> dict[str, Any]:
    """The gradients of an update, and its loss."""
    with engine.train_mode():
        result = engine.train_batch(batched(rows, micro_batch), loss_function=loss)
        gradients = {name: one.grad.full_tensor().clone() for name, one in engine.module.named_parameters()}
    return gradients | {"the loss": torch.tensor(result["loss"]).sum()}


def actor(mode: str, aggregation: str) -> Callable[..., Any]:
    config = FSDPActorConfig(
        strategy="fsdp2",
        rollout_n=1,
        ppo_mini_batch_size=6,
        ppo_micro_batch_size_per_gpu=1,
        use_kl_loss=True,
        entropy_coeff=0.01,
        loss_agg_mode=aggregation,
        loss_scale_factor=14,
        policy_loss=PolicyLossConfig(loss_mode=mode),
    )
    return functools.partial(ppo_loss, config=config)


def as_shipped() -> ModuleType:
    spec = importlib.util.spec_from_file_location("qwen2_vl_as_shipped", str(qwen2_vl.__file__))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_without_the_patch_a_micro_batch_of_padding_ends_the_actor(
    engine: Any, rollouts: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qwen2_vl, "_get_input_embeds", as_shipped()._get_input_embeds)
    rows = [*rollouts[:2], filler(rollouts[0]), filler(rollouts[0])]
    with pytest.raises(AttributeError, match="no attribute 'mean'"):
        update(engine, rows, 2, actor("vanilla", "token-mean"))
    update(engine, [rows[0], rows[2], rows[1], rows[3]], 2, actor("vanilla", "token-mean"))  # an image in each


@pytest.mark.parametrize(
    ("mode", "aggregation"),
    [("vanilla", "token-mean"), ("gspo", "seq-mean-token-mean"), ("vanilla", "seq-mean-token-sum-norm")],
)
def test_padding_changes_neither_loss_nor_gradients(
    engine: Any, rollouts: list[dict[str, Any]], mode: str, aggregation: str
) -> None:
    loss, pad = actor(mode, aggregation), filler(rollouts[0])
    one, two, three = rollouts
    alone = update(engine, rollouts, 3, loss)
    assert alone["the loss"].abs() > 1e-3
    for rows, micro_batch in (([*rollouts, pad, pad, pad], 3), ([one, pad, two, pad, three, pad], 2)):
        padded = update(engine, rows, micro_batch, loss)
        assert padded.keys() == alone.keys()
        for name, value in alone.items():
            largest = value.abs().max()
            assert largest > 0
            assert (padded[name] - value).abs().max() <= 1e-5 * largest, name


def test_log_probabilities_of_rollouts_are_the_same_beside_padding(engine: Any, rollouts: list[dict[str, Any]]) -> None:
    def log_probs(rows: list[dict[str, Any]]) -> list[Any]:
        with engine.eval_mode():
            return list(engine.infer_batch(batched(rows, 1))["model_output"]["log_probs"].unbind())

    padded = log_probs([*rollouts, filler(rollouts[0])])
    for one, other in zip(log_probs(rollouts), padded[:3], strict=True):
        torch.testing.assert_close(one, other)
    assert padded[3].isfinite().all()
