"""Checkpoints of the made-up policy and judge: configuration, tokenizer, processor and random weights in one folder."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import weights
from pictures import PROMPT, names
from shapes import CLIP_MEAN, CLIP_STD, MERGE, PATCH_PX, Shape, build_config
from vocabulary import answer_token, judge_tokenizer, policy_tokenizer

from speciarl.category import LABELS
from speciarl.laptop import tokenizer as tok

CONFIG = "config.json"
"""Written last: a folder that has it is complete."""


class NoRoom(Exception):
    """The disk cannot take a checkpoint; the message is one line with the remedy."""


def policy(folder: Path, shape: Shape, response_tokens: int, device: str) -> Path:
    """The policy's folder, made unless it is complete. Its responses take about half of `response_tokens`."""
    tokenizer = policy_tokenizer(shape.vocabulary, PROMPT, names())
    vocabulary = tokenizer.get_vocab()
    config = build_config(shape, vocabulary)
    leaning = weights.policy_leaning(
        shape.vocabulary,
        ends=tokenizer.eos_token_id,
        answers=[vocabulary[answer_token(name)] for name in names()],
        special=[vocabulary[token] for token in tok.SPECIAL_TOKENS],
        length=response_tokens // 2,
    )
    if not _is_complete(folder, config, shape):
        weights.write(folder, config, shape, leaning, device)
        _save_processor(tokenizer, folder)
        _finish(folder, config, tokenizer)
    return folder


def judge(folder: Path, shape: Shape, prompt: str, device: str) -> Path:
    """The judge's folder, made unless it is complete; `prompt` is the judge prompt whose words it knows."""
    tokenizer = judge_tokenizer(prompt, names())
    if len(tokenizer) > shape.vocabulary:
        raise ValueError(f"the judge's tokenizer has {len(tokenizer)} entries, its embedding {shape.vocabulary} rows")
    config = build_config(shape, tokenizer.get_vocab())
    labels = [tokenizer.encode(label)[0] for label in LABELS]
    if not _is_complete(folder, config, shape):
        weights.write(folder, config, shape, weights.judge_leaning(shape.vocabulary, labels), device)
        tokenizer.save_pretrained(folder)
        _finish(folder, config, tokenizer)
    return folder


def _is_complete(folder: Path, config: Any, shape: Shape) -> bool:
    """Whether the folder holds this very checkpoint; one of other sizes is removed. Raises NoRoom."""
    file = folder / CONFIG
    if file.is_file() and json.loads(file.read_text(encoding="utf-8")) == json.loads(config.to_json_string()):
        return True
    if file.is_file():
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    there = sum(shard.stat().st_size for shard in folder.glob("*.safetensors"))
    wanted = sum(2 * math.prod(size) for size in weights.sizes(config).values()) - there
    free = shutil.disk_usage(folder).free
    if wanted > free:
        raise NoRoom(
            f"{shape.name} takes {wanted / 1e9:.1f} GB, and {folder} has {free / 1e9:.1f} GB free; "
            "give --scratch a folder on a larger disk"
        )
    return False


def _finish(folder: Path, config: Any, tokenizer: Any) -> None:
    generation = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    (folder / "generation_config.json").write_text(json.dumps(generation), encoding="utf-8")
    draft = folder / f".{CONFIG}.tmp"
    draft.write_text(config.to_json_string(), encoding="utf-8")
    draft.rename(folder / CONFIG)


def _save_processor(tokenizer: Any, folder: Path) -> None:
    import transformers

    library: Any = transformers
    patch = (PATCH_PX * MERGE) ** 2  # pixels of one visual token
    processor = library.Qwen2_5_VLProcessor(
        image_processor=library.Qwen2VLImageProcessor(
            min_pixels=4 * patch, max_pixels=16384 * patch, image_mean=CLIP_MEAN, image_std=CLIP_STD
        ),
        tokenizer=tokenizer,
        video_processor=library.Qwen2VLVideoProcessor(),
        chat_template=tok.CHAT_TEMPLATE,
    )
    processor.save_pretrained(folder)
