"""Adapters on their whole way: saved by veRL from two ranks, converted, merged, and served by vLLM, with PEFT as the
measure of each."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import served_adapters
import torch
from safetensors.torch import load_file, save_file
from scripted_engine import row, save

from speciarl.cpu import environment, stack
from speciarl.evaluation.config import ModelConfig
from speciarl.evaluation.models import ResolvedModel, resolve
from speciarl.evaluation.predict.sampling import VLLM_DEFAULTS

RANKS = 2
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run with one checkpoint of base and adapter, and the adapter as PEFT wrote it."""
    folder = tmp_path_factory.mktemp("run")
    command = [sys.executable, str(HERE / "sharded_policy.py"), str(folder)]
    ranks = [
        subprocess.Popen([*command, str(rank), str(RANKS)], env=_surroundings(), stderr=subprocess.PIPE, text=True)
        for rank in range(RANKS)
    ]
    for rank in ranks:
        _, log = rank.communicate(timeout=300)
        assert rank.returncode == 0, log[-4000:]
    return folder


def resolved(run: Path, merge: bool) -> ResolvedModel:
    config = ModelConfig(checkpoint=str(run / "global_step_1"), path=str(_policy()), merge=merge)
    return resolve(config, run / "cache", print)


def test_the_adapter_is_the_one_that_peft_wrote(run: Path) -> None:
    folder = resolved(run, merge=False).adapter
    assert folder is not None
    expected, found = (load_file(path / "adapter_model.safetensors") for path in (run / "peft", folder))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)
    settings = json.loads((folder / "adapter_config.json").read_text())
    assert (settings["r"], settings["lora_alpha"], len(settings["target_modules"])) == (4, 24, 28)


def test_the_base_in_the_checkpoint_is_the_model_that_was_trained(run: Path) -> None:
    from transformers import AutoModelForImageTextToText

    model = resolve(ModelConfig(checkpoint=str(run / "global_step_1")), run / "cache", print)
    load = AutoModelForImageTextToText.from_pretrained
    found, report = load(model.directory, dtype=torch.float32, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    expected = load(_policy(), dtype=torch.float32).state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.state_dict().items())


def test_merged_weights_are_those_that_peft_merges(run: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText

    load = AutoModelForImageTextToText.from_pretrained
    base = load(_policy(), dtype=torch.float32)
    untouched = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    folder = resolved(run, merge=False).adapter
    expected = PeftModel.from_pretrained(base, folder).merge_and_unload().state_dict()
    found = load(resolved(run, merge=True).directory, dtype=torch.float32).state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-6)
    assert sum(not torch.equal(tensor, untouched[name]) for name, tensor in found.items()) == 28


@pytest.fixture(scope="module")
def served(run: Path) -> dict[str, Any]:
    """What the evaluation's engine answers with the adapter, and with one that changes nothing."""
    model = resolved(run, merge=False)
    assert model.adapter is not None
    idle = run / "idle"
    idle.mkdir()
    (idle / "adapter_config.json").write_bytes((model.adapter / "adapter_config.json").read_bytes())
    tensors = load_file(model.adapter / "adapter_model.safetensors")
    save_file(
        {name: tensor * ("lora_A" in name) for name, tensor in tensors.items()}, idle / "adapter_model.safetensors"
    )
    long = row(1, prompt="<image>" + "Name it. " * 60)
    test_set = save(run / "test.parquet", [row(0), long])
    program = [sys.executable, str(HERE / "served_adapters.py")]
    folders = [str(folder) for folder in (model.directory, model.adapter, idle, test_set)]
    surroundings = {**_surroundings(), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [*program, *folders], capture_output=True, text=True, timeout=400, env=surroundings, check=False
    )
    assert "ANSWERS " in done.stdout, done.stderr[-4000:]
    answers: dict[str, Any] = json.loads(done.stdout.partition("ANSWERS ")[2])
    return answers


def test_vllm_answers_with_the_adapter_as_the_merged_model_does(run: Path, served: dict[str, Any]) -> None:
    expected = _logprobs(resolved(run, merge=True).directory, served["prompt"])
    assert len(served["trained"]) >= 20
    for token, logprob in served["trained"].items():
        assert logprob == pytest.approx(float(expected[int(token)]), abs=1e-3)


def test_the_canary_tells_an_adapter_from_one_that_changes_nothing(run: Path, served: dict[str, Any]) -> None:
    unmerged = _logprobs(resolved(run, merge=False).directory, served["prompt"])
    assert served["nothing_differs"] is False
    for token, logprob in served["nothing"].items():
        assert logprob == pytest.approx(float(unmerged[int(token)]), abs=1e-3)


def test_any_single_answer_is_made_again_alone(served: dict[str, Any]) -> None:
    assert served["together"] == served["alone"]
    assert len({answer["text"] for answer in served["together"]}) > 1  # seeds matter
    assert {answer["seed"] for answer in served["together"]} == set(served_adapters.SEEDS)


def test_a_prompt_that_does_not_fit_is_a_failure_with_its_name(served: dict[str, Any]) -> None:
    assert served["too_long"].startswith("prompt_too_long: ")
    assert "maximum model length of 64" in served["too_long"]


def test_the_defaults_are_those_of_the_vllm_that_is_installed(served: dict[str, Any]) -> None:
    assert served["defaults"] == dict(VLLM_DEFAULTS)


def _logprobs(folder: Path, prompt: list[int]) -> torch.Tensor:
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt])).logits
    return torch.log_softmax(logits[0, -1], dim=-1)


def _policy() -> Path:
    import speciarl.laptop

    return Path(speciarl.laptop.__file__).parent / "models" / "policy"


def _surroundings() -> dict[str, str]:
    ours = environment.variables() if stack.active() else {}
    return {**os.environ, **ours, "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
