"""Random weights for a model of any size, a shard at a time, so that neither memory nor patience need hold all of it.

Drawn so that the numbers in the network stay of order one, and the outputs are of use. Hidden dimension 0 is a
constant: no layer writes to it, all ordinary embeddings hold the same number there, and so the output layer's weight on
it is a bias. With that the policy ends its responses and gives answers now and then, and the judge always says a label.
"""

import json
import math
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from shapes import Shape, skeleton

SHARPNESS = 3.0
"""Standard deviation of the logits: sampled tokens then have probabilities that can be compared."""
CONSTANT = 0.5
"""Value of the constant dimension after the last norm. Small, as tied embeddings add it to all logits."""
DOWN_GAIN = 2.0
LAYER_VARIANCE = 1.4
"""What one layer adds to the hidden state with that gain, in a model drawn like this."""
ATTENTION_GAIN = 2.0
"""On queries and on keys. Attention then picks out few tokens; spread over all, it would hardly tell inputs apart."""
SHARD_BYTES = 2 * 10**9
_PICKS, _PICKS_NORMED = ("q_proj.weight", "k_proj.weight"), ("q_norm.weight", "k_norm.weight")
"""Of queries and keys; where these are normed, as in Qwen3, only the scale of the norm counts."""
_WRITES = ("o_proj.weight", "down_proj.weight")
"""Of a language layer: what adds to the hidden state."""


@dataclass(frozen=True)
class Leaning:
    """What the output layer prefers."""

    bias: Mapping[int, float]
    """Added to the logit of a token, in nats."""
    fixed: Mapping[int, float]
    """The whole logit of a token, whatever came before."""


def policy_leaning(size: int, ends: int, answers: Sequence[int], special: Sequence[int], length: int) -> Leaning:
    """Of a policy: responses of about `length` tokens, an answer about eight times as often as an end, and nothing of
    what stands for an image, which a response must not hold."""
    all_tokens = math.log(size) + SHARPNESS**2 / 2  # the logarithm of the sum over all tokens of exp(logit)
    bias = math.log(8 * size / (length * len(answers)))
    fixed = dict.fromkeys(special, -10.0) | {ends: all_tokens - math.log(length)}
    return Leaning(dict.fromkeys(answers, bias), fixed)


def judge_leaning(size: int, labels: Sequence[int]) -> Leaning:
    """Of a judge: hardly ever anything but the first token of a label, and which one is chance."""
    return Leaning(dict.fromkeys(labels, math.log(size) + 8.0), {})


def published_name(name: str) -> str:
    """A weight's name in published checkpoints, which transformers and vLLM both read."""
    return name.replace("model.visual.", "visual.").replace("model.language_model.", "model.")


def draw(name: str, size: Sequence[int], shape: Shape, leaning: Leaning, device: str = "cpu") -> torch.Tensor:
    """One weight, the same at every call on the same kind of device."""
    if len(size) == 1:
        value = ATTENTION_GAIN if name.endswith(_PICKS_NORMED) else float(not name.endswith("bias"))
        return torch.full(tuple(size), value, dtype=torch.bfloat16)
    generator = torch.Generator(device).manual_seed(zlib.crc32(name.encode()))
    head = name == "lm_head.weight" or (shape.tied and name.endswith("embed_tokens.weight"))
    spread = 1.0 if name.endswith("embed_tokens.weight") else 1 / math.sqrt(math.prod(size[1:]))
    if head:
        spread = SHARPNESS / math.sqrt(shape.hidden)
    elif name.endswith("down_proj.weight"):
        spread *= DOWN_GAIN
    elif name.endswith(_PICKS):
        spread *= ATTENTION_GAIN
    drawn = torch.empty(tuple(size), dtype=torch.bfloat16, device=device).normal_(0, spread, generator=generator)
    if name.startswith("visual."):
        return drawn.cpu()
    if name.endswith(_WRITES):
        drawn[0] = 0
    if name.endswith("embed_tokens.weight"):
        drawn[:, 0] = CONSTANT * math.sqrt(LAYER_VARIANCE * shape.layers)
    elif head:
        drawn[:, 0] = 0
    if head:
        for token, logit in leaning.fixed.items():
            drawn[token] = 0
            drawn[token, 0] = logit / CONSTANT
        for token, bias in leaning.bias.items():
            drawn[token, 0] += bias / CONSTANT
    return drawn.cpu()


def sizes(config: Any) -> dict[str, tuple[int, ...]]:
    """Published name and size of every weight that is stored; tied ones are stored once."""
    tied = config.tie_word_embeddings
    state = skeleton(config).state_dict()
    stored = {published_name(name): tuple(weight.shape) for name, weight in state.items()}
    return {name: size for name, size in stored.items() if not (tied and name == "lm_head.weight")}


def shards(weights: Mapping[str, Sequence[int]], most: int = SHARD_BYTES) -> Iterator[list[str]]:
    """The names in order, in parts of at most so many bytes of bfloat16; a larger weight is a part of its own."""
    part: list[str] = []
    held = 0
    for name, size in weights.items():
        count = 2 * math.prod(size)
        if part and held + count > most:
            yield part
            part, held = [], 0
        part.append(name)
        held += count
    if part:
        yield part


def write(folder: Path, config: Any, shape: Shape, leaning: Leaning, device: str = "cpu") -> None:
    """All shards and their index. A shard that is there already stays, so that an interrupted call can be repeated."""
    wanted = sizes(config)
    parts = list(shards(wanted))
    where: dict[str, str] = {}
    for number, names in enumerate(parts, 1):
        file = folder / f"model-{number:05d}-of-{len(parts):05d}.safetensors"
        where |= dict.fromkeys(names, file.name)
        if file.is_file():
            continue
        draft = file.with_name(f".{file.name}.{os.getpid()}.tmp")
        tensors = {name: draw(name, wanted[name], shape, leaning, device) for name in names}
        save_file(tensors, draft, metadata={"format": "pt"})
        os.replace(draft, file)
    total = sum(2 * math.prod(size) for size in wanted.values())
    index = {"metadata": {"total_size": total}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
