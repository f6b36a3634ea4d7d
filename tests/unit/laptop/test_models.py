"""The shipped checkpoints: size, contents, and that stock classes can use them."""

import io
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from transformers import AutoConfig, AutoProcessor, AutoTokenizer, Qwen2_5_VLForConditionalGeneration, Qwen2ForCausalLM

from data_prep.emoji.concepts import load_concepts
from data_prep.emoji.dataset import build
from speciarl.answer import parse
from speciarl.category import LABELS
from speciarl.laptop.checkpoint import RECORD, shipped
from speciarl.laptop.judge.model import PROMPT_NAME
from speciarl.laptop.judge.runner import JudgeRunner
from speciarl.laptop.world import USER_TEXT
from speciarl.verifier_server.judge.prompt import load_prompt

_MODELS = ("policy", "judge")
_MAX_BYTES = 12 * 2**20


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("emoji")
    concepts = load_concepts()
    build([concepts[at] for at in range(0, len(concepts), 25)], folder, 0, 1, lambda _: None)
    return folder


@pytest.mark.parametrize("name", _MODELS)
def test_a_checkpoint_is_small_and_complete(name: str) -> None:
    folder = shipped(name)
    assert (folder / "model.safetensors").stat().st_size <= _MAX_BYTES
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    assert {"command", "seed", "seconds", "versions", "parameters"} <= set(record)
    with safe_open(folder / "model.safetensors", "pt") as weights:
        assert {weights.get_slice(key).get_dtype() for key in weights.keys()} == {"BF16"}  # noqa: SIM118


@pytest.mark.parametrize("name", _MODELS)
def test_the_vocabulary_has_no_row_without_a_token(name: str) -> None:
    config = AutoConfig.from_pretrained(shipped(name))
    tokenizer = AutoTokenizer.from_pretrained(shipped(name))
    text_config = config.get_text_config()
    assert text_config.vocab_size == len(tokenizer)
    assert text_config.eos_token_id == tokenizer.eos_token_id
    assert config.dtype == torch.float32


def test_the_policy_keeps_its_promises() -> None:
    figures = json.loads((shipped("policy") / RECORD).read_text(encoding="utf-8"))["figures"]
    for side in ("in_domain", "out_of_domain"):
        modes = figures[side]
        assert modes["sampled"]["rates"]["unparsable"] <= 0.05
        assert modes["greedy"]["specificity"] <= 0.35
        assert modes["greedy"]["correctness"] >= 0.95
        assert modes["best_of_10"]["hm"] >= modes["sampled"]["hm"] + 0.15
        assert figures[f"{side}/unknown"]["sampled"]["rates"]["specific"] <= 0.02


def test_the_judge_keeps_its_promise() -> None:
    held_out = json.loads((shipped("judge") / RECORD).read_text(encoding="utf-8"))["held_out"]
    assert held_out["agreement"] >= 0.98
    assert sum(map(sum, held_out["confusion"])) == held_out["pairs"] > 1000


def test_stock_classes_answer_parseably_on_real_rows(data: Path) -> None:
    folder = shipped("policy")
    processor = AutoProcessor.from_pretrained(folder)
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder)
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": USER_TEXT}]}]
    text = processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    rows = pq.read_table(data / "test.parquet").to_pylist()
    images = [Image.open(io.BytesIO(row["images"][0]["bytes"])) for row in rows]
    inputs = processor(text=[text] * len(images), images=images, return_tensors="pt")
    answered = model.generate(**inputs, max_new_tokens=14, do_sample=False)
    texts = processor.batch_decode(answered[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    groups = {row["extra_info"]["label_path"][0] for row in rows}
    assert all(parse(text) is not None for text in texts)
    assert sum(parse(text) in groups for text in texts) >= 0.8 * len(texts)


def test_the_judge_passes_the_golden_pairs_of_its_prompt() -> None:
    folder = shipped("judge")
    prompt = load_prompt(PROMPT_NAME)
    runner = JudgeRunner(Qwen2ForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder), prompt)
    verdicts = runner.verdicts([golden.pair for golden in prompt.golden])
    assert all(verdict in golden.expected for verdict, golden in zip(verdicts, prompt.golden, strict=True))
    assert len(LABELS) == 6


def test_the_rows_load_through_verls_dataset(data: Path) -> None:
    from omegaconf import OmegaConf
    from verl.utils.dataset.rl_dataset import RLHFDataset

    folder = shipped("policy")
    config = OmegaConf.create({"max_prompt_length": 32, "filter_overlong_prompts": True, "image_key": "images"})
    dataset = RLHFDataset(
        data_files=str(data / "test.parquet"),
        tokenizer=AutoTokenizer.from_pretrained(folder),
        config=config,
        processor=AutoProcessor.from_pretrained(folder),
    )
    row = dataset[0]
    assert len(dataset) == pq.read_metadata(data / "test.parquet").num_rows
    assert row["reward_model"]["ground_truth"] == row["extra_info"]["label_path"][-1]
    assert row["data_source"] == "emoji/animals"
