import json
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch

from speciarl.errors import DataError
from speciarl.evaluation.models import adapter as adapters
from speciarl.evaluation.models.canary import distance, logits_differ, prove
from speciarl.evaluation.models.weights import canonical, weights

UP, DOWN = tiny_models.UP, tiny_models.DOWN
B_UP = f"base_model.model.{UP}.lora_B.weight"
A_UP = f"base_model.model.{UP}.lora_A.weight"


def test_a_good_adapter_matches_its_base_under_both_ways_of_naming(tmp_path: Path) -> None:
    base = weights(tiny_models.model(tmp_path / "base"))
    adapter = adapters.read(tiny_models.adapter(tmp_path / "adapter"))
    assert adapter.targets(base) == {
        UP: "model.layers.0.mlp.up_proj.weight",
        DOWN: "model.layers.0.mlp.down_proj.weight",
    }
    assert adapter.scales == {UP: 3.0, DOWN: 3.0}
    adapter.refuse_unserved()


def test_adapters_in_torchs_own_format_are_read(tmp_path: Path) -> None:
    folder = tiny_models.adapter(tmp_path / "adapter")
    (folder / "adapter_model.safetensors").unlink()
    torch.save(tiny_models.lora(), folder / "adapter_model.bin")
    assert adapters.read(folder).scales == {UP: 3.0, DOWN: 3.0}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"lora_alpha": 0}, "lora_alpha is 0 and must be above 0"),
        ({"lora_alpha": None}, "lora_alpha is None and must be above 0"),
        ({"lora_alpha": -1}, "must be above 0"),
        ({"r": 0}, "r is 0 and must be above 0"),
        ({"r": 3}, "says rank 3 .* matrices have 2"),
        ({"peft_type": "LOHA"}, "describes no LoRA adapter"),
        ({"use_dora": True}, "DoRA"),
        ({"modules_to_save": ["lm_head"]}, "modules saved whole"),
        ({"fan_in_fan_out": True}, "transposed weights"),
        ({"bias": "all"}, "trained biases"),
        ({"target_modules": ["up_proj"]}, "matrices for .*down_proj, which adapter_config.json does not target"),
        ({"target_modules": ["up_proj", "down_proj", "q_proj"]}, "targets q_proj, for which there are no matrices"),
        ({"target_modules": ".*gate_proj"}, "for which there are no matrices"),
        ({"target_modules": []}, "must name modules"),
    ],
)
def test_settings_that_cannot_be_right_are_refused(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    _refused(tiny_models.adapter(tmp_path / "adapter", **settings), said)


@pytest.mark.parametrize("targets", ["all-linear", r".*\.(up|down)_proj", [UP, DOWN]])
def test_ways_of_naming_targets(tmp_path: Path, targets: object) -> None:
    adapters.read(tiny_models.adapter(tmp_path / "adapter", target_modules=targets))


def _changed(name: str, tensor: torch.Tensor | None) -> dict[str, torch.Tensor]:
    tensors = tiny_models.lora()
    if tensor is None:
        del tensors[name]
    else:
        tensors[name] = tensor
    return tensors


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        (_changed(B_UP, torch.full((tiny_models.INNER, 2), float("nan"))), "not finite"),
        (_changed(A_UP, torch.full((2, tiny_models.HIDDEN), float("inf"))), "not finite"),
        ({name: tensor * ("lora_A" in name) for name, tensor in tiny_models.lora().items()}, "changes nothing"),
        (_changed(B_UP, None), "no matching pair of A and B"),
        (_changed("base_model.model.lm_head.weight", torch.zeros(2, 2)), "no LoRA matrix"),
        ({}, "no LoRA matrices"),
    ],
)
def test_tensors_that_cannot_be_right_are_refused(tmp_path: Path, tensors: dict[str, torch.Tensor], said: str) -> None:
    _refused(tiny_models.adapter(tmp_path / "adapter", tensors), said)


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    folder = tiny_models.adapter(tmp_path / "adapter")
    file = folder / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    _refused(folder, "adapter_model.safetensors cannot be read")
    file.unlink()
    _refused(folder, "adapter_model.bin cannot be read")
    (folder / "adapter_config.json").write_text("{")
    _refused(folder, "no JSON")
    (folder / "adapter_config.json").unlink()
    _refused(folder, "is no adapter")


def test_an_adapter_of_another_model_is_refused(tmp_path: Path) -> None:
    base = weights(tiny_models.model(tmp_path / "base"))
    renamed = {name.replace("layers.0.", "layers.1."): tensor for name, tensor in tiny_models.lora().items()}
    other = adapters.read(tiny_models.adapter(tmp_path / "other", renamed, target_modules="all-linear"))
    with pytest.raises(DataError, match=r"has model\.language_model\.layers\.1\.mlp\.down_proj, which .*base has not"):
        other.targets(base)
    wider = adapters.read(tiny_models.adapter(tmp_path / "wider", _changed(A_UP, torch.ones(2, 9))))
    with pytest.raises(DataError, match=r"as 10 x 9, but .*base has it as 10 x 6"):
        wider.targets(base)


def test_what_vllm_would_leave_out_or_scale_otherwise_may_only_be_merged(tmp_path: Path) -> None:
    visual = {name.replace("language_model.layers", "visual.blocks"): t for name, t in tiny_models.lora().items()}
    adapter = adapters.read(tiny_models.adapter(tmp_path / "visual", visual, target_modules="all-linear"))
    with pytest.raises(DataError, match=r"2 modules outside the language model.*set `merge: true`"):
        adapter.refuse_unserved()
    adapter = adapters.read(tiny_models.adapter(tmp_path / "alphas", alpha_pattern={"up_proj": 8}))
    assert adapter.scales == {UP: 4.0, DOWN: 3.0}
    with pytest.raises(DataError, match="ranks or alphas of its own"):
        adapter.refuse_unserved()


def test_rank_stabilised_adapters_scale_by_the_root(tmp_path: Path) -> None:
    adapter = adapters.read(tiny_models.adapter(tmp_path / "adapter", use_rslora=True))
    assert adapter.scales[UP] == pytest.approx(6 / 2**0.5)


def test_wrappers_are_no_part_of_a_module() -> None:
    names = ["model.layers.0.mlp", "model.language_model.layers.0.mlp", "language_model.model.layers.0.mlp"]
    assert {canonical(name) for name in names} == {"layers.0.mlp"}
    assert canonical("model.visual.merger.mlp.0") == canonical("visual.merger.mlp.0") == "visual.merger.mlp.0"


@pytest.mark.parametrize(
    ("base", "adapter", "differs"),
    [
        ([{1: -0.5, 2: -1.0}] * 2, {1: -0.5, 2: -1.0}, False),
        ([{1: -0.5, 2: -1.0}] * 2, {1: -0.5, 2: -1.001}, True),
        ([{1: -0.5, 2: -1.0}] * 2, {1: -0.5, 3: -1.0}, False),  # equally likely tokens changed places in the list
        ([{1: -0.5, 2: -1.0}] * 2, {3: -0.5, 2: -1.0}, True),
        ([{1: -0.5}, {1: -0.6}], {1: -0.55}, False),  # no more than what the base differs from itself
        ([{1: -0.5}] * 2, {}, True),
    ],
)
def test_logits_differ(base: list[dict[int, float]], adapter: dict[int, float], differs: bool) -> None:
    assert logits_differ(*base, adapter) is differs
    if not differs:
        with pytest.raises(DataError, match="mine: the engine answers with the adapter exactly as without it"):
            prove(*base, adapter, "mine")


def test_distance_is_symmetric_and_zero_to_itself() -> None:
    first, second = {1: -0.5, 2: -3.0}, {2: -0.1, 4: -2.0}
    assert distance(first, second) == distance(second, first) == pytest.approx(2.9)
    assert distance(first, first) == distance({}, {}) == 0


def _refused(folder: Path, said: str) -> None:
    with pytest.raises(DataError, match=said) as refusal:
        adapters.read(folder)
    assert "\n" not in str(refusal.value)
    assert json.dumps(str(refusal.value))
