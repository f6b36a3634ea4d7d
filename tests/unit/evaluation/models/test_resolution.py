import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
from safetensors.torch import load_file, save_file

from speciarl.errors import ConfigError, DataError, SpeciaRLError
from speciarl.evaluation.config import EvaluationConfig, ModelConfig, parse
from speciarl.evaluation.models import ResolvedModel, identify, resolve
from speciarl.evaluation.models import adapter as adapters

META = {"r": 2, "lora_alpha": 6, "task_type": "CAUSAL_LM"}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny_models.model(tmp_path / "base")


def resolved(tmp_path: Path, **settings: Any) -> ResolvedModel:
    return resolve(ModelConfig(**{key: _text(value) for key, value in settings.items()}), tmp_path / "cache", print)


def _text(value: object) -> object:
    return str(value) if isinstance(value, Path) else value


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}


def refused(tmp_path: Path, said: str, **settings: Any) -> None:
    with pytest.raises(SpeciaRLError, match=said) as refusal:
        resolved(tmp_path, **settings)
    assert "\n" not in str(refusal.value)


def test_a_directory_is_taken_as_it_is(tmp_path: Path, base: Path) -> None:
    model = resolved(tmp_path, path=base)
    assert (model.directory, model.adapter, model.adapter_sha, model.rank) == (base, None, None, None)
    assert model.generation == {"temperature": 0.1, "top_k": 1}
    assert not (tmp_path / "cache").exists()


def test_an_adapter_is_served_beside_its_base(tmp_path: Path, base: Path) -> None:
    folder = tiny_models.adapter(tmp_path / "adapter")
    model = resolved(tmp_path, path=base, adapter=folder)
    assert (model.directory, model.adapter, model.rank) == (base, folder, 2)
    assert model.weights_sha == resolved(tmp_path, path=base).weights_sha
    assert "rank 2, alpha 6, 2 modules" in model.described
    status, file = (folder / "adapter_model.safetensors").stat(), folder / "adapter_model.safetensors"
    content = bytearray(file.read_bytes())
    content[-2] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert resolved(tmp_path, path=base, adapter=folder).adapter_sha != model.adapter_sha


def test_a_merged_adapter_is_in_the_weights(tmp_path: Path, base: Path) -> None:
    folder = tiny_models.adapter(tmp_path / "adapter")
    served, model = (resolved(tmp_path, path=base, adapter=folder, merge=merge) for merge in (False, True))
    assert (model.adapter, model.adapter_sha, model.rank) == (None, None, None)
    assert model.weights_sha not in (served.weights_sha, served.adapter_sha)
    old, new, lora = tensors(base), tensors(model.directory), tiny_models.lora()
    assert new.keys() == old.keys()
    for module in tiny_models.SHAPES:
        name, prefix = tiny_models.on_hub(f"{module}.weight"), f"base_model.model.{module}"
        update = 3 * lora[f"{prefix}.lora_B.weight"] @ lora[f"{prefix}.lora_A.weight"]
        torch.testing.assert_close(new.pop(name), old.pop(name) + update)
    assert all(torch.equal(new[name], old[name]) for name in old)
    for name in ("config.json", "tokenizer.json", "generation_config.json", "model.safetensors.index.json"):
        assert (model.directory / name).read_bytes() == (base / name).read_bytes()
    again = resolved(tmp_path, path=base, adapter=folder, merge=True)
    assert again == model


@pytest.mark.parametrize(
    ("said", "kept"), [("bfloat16", torch.bfloat16), ("float32", torch.float32), (None, torch.bfloat16)]
)
def test_weights_in_bfloat16_are_rounded_once_if_at_all(
    tmp_path: Path, base: Path, said: str | None, kept: torch.dtype
) -> None:
    for file in base.glob("*.safetensors"):
        save_file(
            {name: tensor.bfloat16() for name, tensor in load_file(file).items()}, file, metadata={"format": "pt"}
        )
    (base / "config.json").write_text(json.dumps({**tiny_models.CONFIG, "dtype": said}))
    folder = tiny_models.adapter(tmp_path / "adapter")
    new = tensors(resolved(tmp_path, path=base, adapter=folder, merge=True).directory)
    a, b = adapters.read(folder).matrices[tiny_models.UP]
    name = tiny_models.on_hub(f"{tiny_models.UP}.weight")
    expected = tensors(base)[name].double() + 3 * (b.double() @ a.double())
    torch.testing.assert_close(new.pop(name), expected.to(kept), rtol=torch.finfo(kept).eps, atol=1e-6)
    del new[tiny_models.on_hub(f"{tiny_models.DOWN}.weight")]
    assert {tensor.dtype for tensor in new.values()} == {torch.bfloat16}


@pytest.mark.parametrize("mesh", [(1,), (2,)])
def test_whole_weights_of_a_checkpoint_become_a_model(tmp_path: Path, mesh: tuple[int, ...]) -> None:
    state = tiny_models.weights()
    tiny_models.checkpoint(tmp_path / "run", state, mesh)
    model = resolved(tmp_path, checkpoint=tmp_path / "run")
    found = tensors(model.directory)
    assert found.keys() == state.keys() - {"lm_head.weight"}  # tied
    assert all(torch.equal(found[name], state[name]) for name in found)
    assert (model.directory / "tokenizer.json").is_file()
    assert resolved(tmp_path, checkpoint=tmp_path / "run" / "global_step_3").weights_sha == model.weights_sha
    refused(tmp_path, "whole weights and no adapter; leave `path` out", checkpoint=tmp_path / "run", path="x")
    refused(tmp_path, "leave `merge` out", checkpoint=tmp_path / "run", merge=True)


@pytest.mark.parametrize("mesh", [(1,), (2,)])
def test_the_adapter_of_a_checkpoint_keeps_alpha_rank_and_targets(
    tmp_path: Path, base: Path, mesh: tuple[int, ...]
) -> None:
    tiny_models.checkpoint(tmp_path / "run", tiny_models.in_peft(base=False), mesh, META)
    model = resolved(tmp_path, checkpoint=tmp_path / "run", path=base)
    assert model.directory == base
    assert model.adapter
    config = json.loads((model.adapter / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (2, 6)
    assert config["target_modules"] == sorted(tiny_models.SHAPES)
    assert config["base_model_name_or_path"] is None  # of which other folders could not be made the same bytes
    found = tensors(model.adapter)
    assert found.keys() == tiny_models.lora().keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in tiny_models.lora().items())
    merged = resolved(tmp_path, checkpoint=tmp_path / "run", path=base, merge=True)
    by_hand = resolved(tmp_path, path=base, adapter=tiny_models.adapter(tmp_path / "adapter"), merge=True)
    for name, tensor in tensors(by_hand.directory).items():
        assert torch.equal(tensors(merged.directory)[name], tensor)


def test_a_checkpoint_with_base_and_adapter_needs_no_path(tmp_path: Path, base: Path) -> None:
    tiny_models.checkpoint(tmp_path / "run", tiny_models.in_peft(base=True), (2,), META)
    model = resolved(tmp_path, checkpoint=tmp_path / "run")
    assert model.adapter
    found, old = tensors(model.directory), tensors(base)
    assert {tiny_models.on_hub(name) for name in found} == old.keys()
    assert all(torch.equal(tensor, old[tiny_models.on_hub(name)]) for name, tensor in found.items())
    over = resolved(tmp_path, checkpoint=tmp_path / "run", path=base)
    assert (over.directory, over.adapter) == (base, model.adapter)


def test_an_adapter_over_the_model_that_the_checkpoint_names(tmp_path: Path, base: Path) -> None:
    actor = tiny_models.checkpoint(tmp_path / "run", tiny_models.in_peft(base=False), (1,), META)
    refused(tmp_path, "does not name its base model; give `path`", checkpoint=tmp_path / "run")
    config = actor / "huggingface" / "config.json"
    config.write_text(json.dumps({**tiny_models.CONFIG, "_name_or_path": str(base)}))
    model = resolved(tmp_path, checkpoint=tmp_path / "run")
    assert model.directory == base
    assert model.described.startswith(f"{base} + adapter of ")
    config.write_text(json.dumps({**tiny_models.CONFIG, "_name_or_path": "/gone/base"}))
    refused(tmp_path, "base model of .*run: there is no directory /gone/base", checkpoint=tmp_path / "run")


def test_alpha_is_known_or_asked_for(tmp_path: Path, base: Path) -> None:
    actor = tiny_models.checkpoint(tmp_path / "run", tiny_models.in_peft(base=False))
    run = {"checkpoint": tmp_path / "run", "path": base}
    refused(tmp_path, r"does not record its LoRA alpha .* give the model's key `lora_alpha`", **run)
    given = resolved(tmp_path, **run, lora_alpha=6)
    assert given.adapter
    assert adapters.read(given.adapter).alpha == 6
    assert resolved(tmp_path, **run, lora_alpha=7).adapter_sha != given.adapter_sha
    (actor / "lora_adapter").mkdir()
    (actor / "lora_adapter" / "adapter_config.json").write_text(json.dumps({"r": 2, "lora_alpha": 6}))
    recorded = resolved(tmp_path, **run)
    assert recorded.adapter
    assert adapters.read(recorded.adapter).alpha == 6
    refused(tmp_path, r"`lora_alpha` is 7, but .* records 6; leave the key out", **run, lora_alpha=7)
    (actor / "lora_train_meta.json").write_text(json.dumps({"r": 2, "lora_alpha": 0}))
    refused(tmp_path, "records a LoRA alpha of 0", **run)
    (actor / "lora_train_meta.json").write_text(json.dumps({"r": 4, "lora_alpha": 6}))
    refused(tmp_path, r"has LoRA ranks \[2\] and records 4", **run)


def test_identifying_writes_nothing_and_knows_the_keys(tmp_path: Path, base: Path) -> None:
    tiny_models.checkpoint(tmp_path / "run", tiny_models.in_peft(base=True), (1,), META)
    config = ModelConfig(checkpoint=str(tmp_path / "run"), merge=True)
    before = sorted(path for path in tmp_path.rglob("*"))
    found = identify(config, print)
    assert sorted(path for path in tmp_path.rglob("*")) == before
    model = found.prepare(tmp_path / "cache", print)
    assert (found.weights_sha, found.adapter_sha) == (model.weights_sha, model.adapter_sha)


def test_what_cannot_be_is_refused_in_a_line(tmp_path: Path, base: Path) -> None:
    refused(tmp_path, "path: there is no directory /none; give one", path="/none")
    refused(tmp_path, "adapter: there is no directory", path=base, adapter="a/b/c")
    refused(tmp_path, "`merge` is set, but there is no `adapter`", path=base, merge=True)
    refused(tmp_path, "which has no revisions; leave `revision` out", path=base, revision="main")
    refused(tmp_path, "whose weights cannot be seen", path=base, endpoint="http://localhost:1/v1")
    (base / "config.json").write_text(json.dumps({"quantization_config": {}}))
    folder = tiny_models.adapter(tmp_path / "adapter")
    refused(tmp_path, "is quantised", path=base, adapter=folder, merge=True)
    (base / "generation_config.json").write_text("[]")
    refused(tmp_path, "generation_config.json cannot be read", path=base)


def test_a_lora_alpha_without_a_checkpoint_is_refused() -> None:
    plain: dict[str, Any] = {"datasets": {"d": {"file": "f"}}, "judges": {"j": {"use": "taxonomy"}}}
    with pytest.raises(ConfigError, match="lora_alpha"):
        parse({**plain, "models": {"m": {"path": "x", "lora_alpha": 4}}})
    with pytest.raises(ConfigError, match="lora_alpha"):
        parse({**plain, "models": {"m": {"checkpoint": "x", "lora_alpha": 0}}})
    assert isinstance(parse({**plain, "models": {"m": {"checkpoint": "x", "lora_alpha": 4}}}), EvaluationConfig)


def test_the_hub_is_asked_for_names_and_its_refusal_is_a_line(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    asked: list[Any] = []

    def listed(self: object, name: str, revision: str | None) -> list[str]:
        if name == "org/gone":
            raise OSError("no\nsuch model")
        return ["config.json", "README.md", "model.safetensors", "original/model.pth"]

    def download(name: str, **settings: Any) -> str:
        asked.append((name, settings))
        if name == "org/gone":
            raise ValueError("not cached")
        return str(base)

    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", listed)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    model = resolved(tmp_path, path="org/model", revision="v1")
    assert (model.directory, model.described) == (base, "org/model@v1")
    assert asked == [("org/model", {"revision": "v1", "allow_patterns": ["config.json", "model.safetensors"]})]
    refused(
        tmp_path, r"path: org/gone is no directory, and the Hub does not give it \(no such model\)", path="org/gone"
    )
    assert asked[-1] == ("org/gone", {"revision": None, "local_files_only": True})


def test_importing_loads_nothing_heavy() -> None:
    heavy = {"torch", "verl", "vllm", "peft", "transformers", "safetensors", "huggingface_hub"}
    code = f"import speciarl.evaluation.models, sys; print({heavy} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"


def test_a_cut_weight_file_is_told_before_merging(tmp_path: Path, base: Path) -> None:
    file = base / "model-00001-of-00002.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(DataError, match=r"model-00001-of-00002\.safetensors cannot be read"):
        resolved(tmp_path, path=base, adapter=tiny_models.adapter(tmp_path / "adapter"), merge=True)
