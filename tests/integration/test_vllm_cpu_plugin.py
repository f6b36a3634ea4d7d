"""vLLM's CPU backend takes new weights while it serves: what the rollout's weight sync needs."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from speciarl.cpu import environment, patches, stack

pytestmark = pytest.mark.skipif(not stack.active(), reason="about a CPU installation")

SYNC = """
import sys, torch
from transformers import Qwen2Config, Qwen2ForCausalLM
from vllm import LLM, SamplingParams

model = sys.argv[1]
torch.manual_seed(0)
source = Qwen2ForCausalLM(Qwen2Config(
    vocab_size=264, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
    num_key_value_heads=2, max_position_embeddings=128, eos_token_id=0, bos_token_id=None,
))
source.save_pretrained(model)
weights = source.state_dict()
llm = LLM(model, skip_tokenizer_init=True, dtype="float32", enforce_eager=True, max_model_len=64, max_num_seqs=4)
sampling = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True, detokenize=False)

def answer():
    [request] = llm.generate([{"prompt_token_ids": [5, 6, 7]}], sampling)
    return list(request.outputs[0].token_ids)

def load(change):
    changed = [(name, change(tensor)) for name, tensor in weights.items()]
    llm.apply_model(lambda module: len(module.load_weights(iter(changed))))
    llm.reset_prefix_cache()

first = answer()
load(lambda tensor: tensor.flip(0))
other = answer()
load(lambda tensor: tensor)
print("ANSWERS", first != other, first == answer())
"""


@pytest.fixture
def layer() -> torch.nn.Linear:
    torch.manual_seed(0)
    return torch.nn.Linear(64, 32, bias=False).requires_grad_(False)


def test_vllm_drops_or_ignores_new_weights_without_the_patch(layer: torch.nn.Linear) -> None:
    from vllm.model_executor.layers import utils

    original = getattr(utils.dispatch_cpu_unquantized_gemm, "__wrapped__", utils.dispatch_cpu_unquantized_gemm)
    inputs = torch.randn(3, 64)
    before = torch.nn.functional.linear(inputs, layer.weight)
    original(layer, remove_weight=False)
    layer.weight.mul_(2)  # a weight sync
    stale = layer.cpu_linear(inputs, layer.weight, None)
    assert torch.allclose(stale, before, atol=1e-4)
    original(layer, remove_weight=True)
    assert layer.weight.numel() == 0


@pytest.mark.parametrize("remove_weight", [True, False])
def test_patch_keeps_the_weight_and_uses_it(layer: torch.nn.Linear, remove_weight: bool) -> None:
    from vllm.model_executor.layers import utils

    original = getattr(utils.dispatch_cpu_unquantized_gemm, "__wrapped__", utils.dispatch_cpu_unquantized_gemm)
    module = SimpleNamespace(dispatch_cpu_unquantized_gemm=original)
    patches.VLLM_KEEPS_LINEAR_WEIGHTS.apply(module)
    once = module.dispatch_cpu_unquantized_gemm
    patches.VLLM_KEEPS_LINEAR_WEIGHTS.apply(module)
    assert module.dispatch_cpu_unquantized_gemm is once
    inputs, weight = torch.randn(3, 64), layer.weight
    module.dispatch_cpu_unquantized_gemm(layer, remove_weight)
    assert layer.weight is weight
    layer.weight.mul_(2)
    assert torch.equal(layer.cpu_linear(inputs, layer.weight, None), torch.nn.functional.linear(inputs, layer.weight))


def test_other_layers_are_left_to_vllm() -> None:
    seen = []
    module = SimpleNamespace(dispatch_cpu_unquantized_gemm=lambda layer, remove_weight: seen.append(remove_weight))
    patches.VLLM_KEEPS_LINEAR_WEIGHTS.apply(module)
    experts = SimpleNamespace(weight=torch.zeros(2, 3, 4))
    missing = SimpleNamespace(weight=torch.zeros(2, 3, device="meta"))
    module.dispatch_cpu_unquantized_gemm(experts, True)
    module.dispatch_cpu_unquantized_gemm(missing, False)
    assert seen == [True, False]
    assert not hasattr(experts, "cpu_linear")


def test_running_engine_answers_with_new_weights(tmp_path: Path) -> None:
    """vLLM finds the plug-in through its entry point; nothing of ours is imported here."""
    surroundings = {**os.environ, **environment.variables(), "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    command = [sys.executable, "-c", SYNC, str(tmp_path / "model")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=400, env=surroundings, cwd="/")
    assert "ANSWERS True True" in result.stdout, result.stderr[-4000:]
