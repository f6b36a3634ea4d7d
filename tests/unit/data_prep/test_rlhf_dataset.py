"""The proof: veRL's own RLHFDataset and a real Qwen2.5-VL processor read every file that is built."""

import asyncio
from pathlib import Path
from typing import Any

import data_prep_fixtures as fixtures
import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf
from transformers import AutoProcessor
from verl.utils.dataset.rl_dataset import RLHFDataset, collate_fn
from verl.utils.tokenizer import build_multimodal_processor_inputs

from data_prep.compose import settings
from data_prep.config import BuildConfig
from data_prep.emoji import dataset
from data_prep.emoji.concepts import load_concepts
from data_prep.pipeline.build import build

POLICY = Path(__file__).parents[3] / "speciarl" / "laptop" / "models" / "policy"
DATASETS = ("cub200", "aircraft", "flowers", "food", "pets", "cars", "caltech101", "image_folder", "manifest", "hub")
MIX = ("cub200", "flowers", "food", "pets", "cars", "aircraft")


@pytest.fixture(scope="module")
def processor() -> Any:
    loaded = AutoProcessor.from_pretrained(POLICY)
    assert type(loaded).__name__ == "Qwen2_5_VLProcessor"
    return loaded


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    for name in DATASETS:
        getattr(fixtures, f"make_{name}")(folder / name)
    return folder


def built(raw: Path, out: Path, name: str) -> list[Path]:
    if name == "emoji":
        dataset.build(load_concepts()[:6], out, 0, 1, lambda _: None)
        return [out / "train.parquet", out / "test.parquet"]
    words = [f"dataset={name}", f"root={raw if name == 'mix' else raw / name}", f"out={out}", "check_counts=warn"]
    if name == "mix":
        words += [f"sources.{source}.{key}=2" for source in MIX for key in ("count", "test_count")]
    config = settings([*words, "prompts=[general,elimination]"])
    assert isinstance(config, BuildConfig)
    build(config)
    return [out / "train.parquet", out / "test.parquet"]


@pytest.mark.parametrize("name", [*DATASETS, "mix", "emoji"])
def test_verl_reads_every_row(name: str, raw: Path, tmp_path: Path, processor: Any) -> None:
    files = built(raw, tmp_path / "out", name)
    config = OmegaConf.create(
        {
            "cache_dir": str(tmp_path / "cache"),
            "prompt_key": "prompt",
            "image_key": "images",
            "max_prompt_length": 2048,
            "filter_overlong_prompts": False,
            "return_raw_chat": True,
        }
    )
    data = RLHFDataset([str(file) for file in files], processor.tokenizer, config, processor=processor)
    rows = [row for file in files for row in pq.read_table(file).to_pylist()]
    assert len(data) == len(rows) > 0
    items = [data[number] for number in range(len(data))]
    for item, row in zip(items, rows, strict=True):
        assert item["reward_model"]["ground_truth"] == row["reward_model"]["ground_truth"]
        assert item["data_source"] == row["data_source"]
        assert item["extra_info"] == row["extra_info"]
        assert item["index"] == row["extra_info"]["index"]
        (message,) = item["raw_prompt"]
        assert [part["type"] for part in message["content"]] == ["image", "text"]
        assert message["content"][0]["image"].mode == "RGB"
        assert message["content"][1]["text"] == row["prompt"][0]["content"].removeprefix("<image>")
    batch = collate_fn(items)
    assert len(batch["raw_prompt"]) == len(rows)
    # What the agent loop does with a row, and what comes out for the model.
    messages = items[0]["raw_prompt"]
    images, _ = asyncio.run(RLHFDataset.process_vision_info(messages, image_patch_size=14, config=config))
    text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    inputs = build_multimodal_processor_inputs(processor, text=[text], images=images, videos=None, audio=None)
    _, high, wide = inputs["image_grid_thw"][0].tolist()
    assert inputs["pixel_values"].shape == (high * wide, 3 * 2 * 14 * 14)
    image_token = processor.tokenizer.convert_tokens_to_ids(processor.image_token)
    assert (inputs["input_ids"][0] == image_token).sum().item() == high * wide // 4
