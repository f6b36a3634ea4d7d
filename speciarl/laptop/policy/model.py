"""Miniature policy: a real Qwen2.5-VL with 3.8 million parameters, its tokenizer and its processor."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.emoji.views import IMAGE_PX
from speciarl.laptop import tokenizer as tok

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen2_5_VLForConditionalGeneration

PATCH_PX = 14
MERGE = 2
GRID = IMAGE_PX // PATCH_PX
VISUAL_TOKENS = (GRID // MERGE) ** 2
_PROMPT_WORDS = ("user", "assistant", "system", "Name", " it", ".")


def build_policy_tokenizer(words: Iterable[str]) -> PreTrainedTokenizerFast:
    """Tokenizer of the policy; ``words`` are the world's words without the leading space they have in a response."""
    return tok.build_tokenizer([*_PROMPT_WORDS, *(f" {word}" for word in words)], tok.TAGS)


def build_policy(tokenizer: PreTrainedTokenizerFast, device: str = "cpu") -> Qwen2_5_VLForConditionalGeneration:
    """A randomly initialised float32 policy (seed torch first)."""
    import transformers

    library: Any = transformers  # its classes carry no complete type information

    hidden = 192
    text: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": hidden,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "rope_parameters": {"rope_type": "default", "mrope_section": [4, 6, 6], "rope_theta": 10000.0},
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "tie_word_embeddings": True,
    }
    vision: dict[str, Any] = {
        "depth": 4,
        "hidden_size": 160,
        "intermediate_size": 480,
        "num_heads": 5,
        "out_hidden_size": hidden,
        "patch_size": PATCH_PX,
        "spatial_merge_size": MERGE,
        "temporal_patch_size": 2,
        "window_size": 112,
        "fullatt_block_indexes": [1, 3],
        "tokens_per_second": 2,
        "in_channels": 3,
    }
    config = library.Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=tok.token_id(tokenizer, tok.IMAGE_PAD),
        video_token_id=tok.token_id(tokenizer, tok.VIDEO_PAD),
        vision_start_token_id=tok.token_id(tokenizer, tok.VISION_START),
        vision_end_token_id=tok.token_id(tokenizer, tok.VISION_END),
        tie_word_embeddings=True,
        dtype="float32",
    )
    model: Qwen2_5_VLForConditionalGeneration = library.Qwen2_5_VLForConditionalGeneration(config).to(device)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def save_processor(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write tokenizer, image processor and chat template so that ``AutoProcessor`` finds them."""
    import transformers

    library: Any = transformers

    pixels = IMAGE_PX * IMAGE_PX
    half = [0.5, 0.5, 0.5]
    processor = library.Qwen2_5_VLProcessor(
        image_processor=library.Qwen2VLImageProcessor(
            min_pixels=pixels, max_pixels=pixels, image_mean=half, image_std=half
        ),
        tokenizer=tokenizer,
        video_processor=library.Qwen2VLVideoProcessor(),
        chat_template=tok.CHAT_TEMPLATE,
    )
    processor.save_pretrained(folder)
