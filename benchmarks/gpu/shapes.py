"""Configurations of the models that the check makes up: the published sizes, and tiny ones for a machine without a GPU.

Sizes are those of the models' public config files, so that memory and speed are the real ones. Token ids are those of
the vocabulary that `vocabulary.py` makes, which fills the embedding to its last row.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from speciarl.laptop import tokenizer as tok

CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
PATCH_PX, MERGE = 14, 2


@dataclass(frozen=True)
class Shape:
    """One model by its sizes."""

    name: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool
    """Whether the output layer is the embedding."""
    vision: dict[str, Any] = field(default_factory=dict)
    """Of the vision tower; empty for a model of text alone."""


_TOWER = {
    "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "patch_size": PATCH_PX,
    "spatial_merge_size": MERGE, "temporal_patch_size": 2, "window_size": 112, "tokens_per_second": 2,
    "fullatt_block_indexes": [7, 15, 23, 31], "in_channels": 3,
}  # fmt: skip
_TINY_TOWER = _TOWER | {
    "depth": 2, "hidden_size": 64, "intermediate_size": 128, "num_heads": 2, "fullatt_block_indexes": [1]
}  # fmt: skip

POLICIES = {
    "3b": Shape("Qwen2.5-VL of 3B", 36, 2048, 11008, 16, 2, 128, 151936, True, _TOWER | {"out_hidden_size": 2048}),
    "7b": Shape("Qwen2.5-VL of 7B", 28, 3584, 18944, 28, 4, 128, 152064, False, _TOWER | {"out_hidden_size": 3584}),
    "tiny": Shape("tiny Qwen2.5-VL", 2, 128, 256, 4, 2, 32, 2048, True, _TINY_TOWER | {"out_hidden_size": 128}),
}
JUDGES = {
    "4b": Shape("Qwen3 of 4B", 36, 2560, 9728, 32, 8, 128, 151936, True),
    "tiny": Shape("tiny Qwen3", 4, 128, 256, 8, 2, 32, 4096, True),
}


_CLASSES = {"qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration", "qwen3": "Qwen3ForCausalLM"}
_ENDS = {"eos_token_id": tok.IM_END, "pad_token_id": tok.END_OF_TEXT}
_IMAGES = {
    "image_token_id": tok.IMAGE_PAD, "video_token_id": tok.VIDEO_PAD,
    "vision_start_token_id": tok.VISION_START, "vision_end_token_id": tok.VISION_END,
}  # fmt: skip


def build_config(shape: Shape, vocabulary: Mapping[str, int]) -> Any:
    """The configuration as a transformers object: Qwen2.5-VL where there is a vision tower, else Qwen3.

    `vocabulary` has the ids of the special tokens.
    """
    import transformers

    library: Any = transformers  # its classes carry no complete type information
    ids = {"bos_token_id": None} | {key: vocabulary[token] for key, token in _ENDS.items()}
    text: dict[str, Any] = {
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": shape.tied,
        **ids,
    }
    if not shape.vision:
        rope = {"rope_type": "default", "rope_theta": 1e6}
        return library.Qwen3Config(
            **text,
            head_dim=shape.head_dim,
            max_position_embeddings=40960,
            rope_parameters=rope,
            architectures=[_CLASSES["qwen3"]],
            dtype="bfloat16",
        )
    half = shape.head_dim // 2
    sections = [half // 4, half * 3 // 8, half * 3 // 8]  # time, height and width of a position
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": sections}
    return library.Qwen2_5_VLConfig(
        text_config=text | {"max_position_embeddings": 128000, "rope_parameters": rope},
        vision_config=shape.vision,
        **{key: vocabulary[token] for key, token in _IMAGES.items()},
        tie_word_embeddings=shape.tied,
        architectures=[_CLASSES["qwen2_5_vl"]],
        dtype="bfloat16",
        **ids,
    )


def skeleton(config: Any) -> Any:
    """The model without its weights, on torch's `meta` device: names, sizes and nothing else."""
    import torch
    import transformers

    with torch.device("meta"):
        return getattr(transformers, _CLASSES[config.model_type])(config)


def parameters(shape: Shape) -> int:
    """Weights of a model, tied ones once."""
    any_ids = dict.fromkeys((*_ENDS.values(), *_IMAGES.values()), 0)
    return sum(weight.numel() for weight in skeleton(build_config(shape, any_ids)).parameters())


def adapter_parameters(shape: Shape, rank: int) -> int:
    """Weights of an adapter of some rank on all linear layers of the language model."""
    query, key = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    attention = 2 * (shape.hidden + query) + 2 * (shape.hidden + key)
    return shape.layers * rank * (attention + 3 * (shape.hidden + shape.intermediate))
