"""Forward passes of the miniature policy for training and sampling, fast and in plain PyTorch.

All prompts are equal but for the picture, so the prompt is run once per picture and its key-value cache is
branched into the responses; this is differentiable and equals the plain forward pass (tests/unit).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from data_prep.emoji.views import IMAGE_PX
from speciarl.laptop import tokenizer as tok
from speciarl.laptop.policy.model import GRID, MERGE, PATCH_PX, VISUAL_TOKENS
from speciarl.laptop.world import USER_TEXT

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen2_5_VLForConditionalGeneration

MAX_RESPONSE = 14
"""Longest response in tokens, the end token included."""


def prompt_ids(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """Token ids of the one prompt, with the picture's placeholder repeated as the processor does."""
    message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": USER_TEXT}]}
    chat: Any = [message]
    text = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    assert isinstance(text, str)
    return list(tokenizer.encode(text.replace(tok.IMAGE_PAD, tok.IMAGE_PAD * VISUAL_TOKENS)))


def response_ids(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """Token ids of a response with its end token."""
    return [*tokenizer.encode(text), tok.token_id(tokenizer, tok.IM_END)]


def patches(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> torch.Tensor:
    """What Qwen2VLImageProcessor(mean=std=.5) makes of uint8 pictures (B, 56, 56, 3): floats (B, 16, 1176)."""
    count = pixels.shape[0]
    if pixels.shape[1:] != (IMAGE_PX, IMAGE_PX, 3):
        raise ValueError(f"pictures must be {IMAGE_PX} x {IMAGE_PX} RGB, got {pixels.shape[1:]}")
    scaled = torch.from_numpy(pixels).float().div_(127.5).sub_(1.0).permute(0, 3, 1, 2)
    blocks = GRID // MERGE
    frames = scaled.unsqueeze(1).expand(count, 2, 3, IMAGE_PX, IMAGE_PX)
    split = frames.reshape(count, 2, 3, blocks, MERGE, PATCH_PX, blocks, MERGE, PATCH_PX)
    return split.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(count, GRID * GRID, -1)


def see(tower: Any, pixels: torch.Tensor) -> torch.Tensor:
    """Visual tokens (B, 4, H) of patches (B, 16, 1176) by Qwen2.5-VL's vision tower ``tower``.

    Its own forward pass attends picture by picture in a Python loop. Here all pictures have one size and fit in
    one attention window, so the same layers can run as one batch.
    """
    from torch.nn.functional import scaled_dot_product_attention
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb_vision
    from transformers.vision_utils import get_vision_position_ids

    count, length, _ = pixels.shape
    grid = torch.tensor([[1, GRID, GRID]], device=pixels.device)
    angles = tower.rotary_pos_emb(get_vision_position_ids(grid, MERGE))
    angles = torch.cat((angles, angles), dim=-1)
    cosine, sine = angles.cos(), angles.sin()
    hidden = tower.patch_embed(pixels.reshape(count * length, -1)).reshape(count, length, -1)
    for block in tower.blocks:
        attention = block.attn
        mixed = attention.qkv(block.norm1(hidden)).reshape(count, length, 3, attention.num_heads, -1)
        query, key, value = mixed.unbind(2)
        query, key = apply_rotary_pos_emb_vision(query, key, cosine, sine)
        attended = scaled_dot_product_attention(
            query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), scale=attention.scaling
        )
        hidden = hidden + attention.proj(attended.transpose(1, 2).reshape(count, length, -1))
        hidden = hidden + block.mlp(block.norm2(hidden))
    merged: torch.Tensor = tower.merger(hidden)
    return merged.reshape(count, VISUAL_TOKENS, -1)


class PolicyRunner:
    """Wraps a policy and its tokenizer; holds the prompt and its three-axis rotary positions."""

    def __init__(self, model: Qwen2_5_VLForConditionalGeneration, tokenizer: PreTrainedTokenizerFast) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.device = next(model.parameters()).device
        self.end = tok.token_id(tokenizer, tok.IM_END)
        self.pad = tok.token_id(tokenizer, tok.END_OF_TEXT)
        ids = torch.tensor([prompt_ids(tokenizer)])
        image = torch.eq(ids, tok.token_id(tokenizer, tok.IMAGE_PAD))
        positions, _ = model.model.get_rope_index(
            input_ids=ids, mm_token_type_ids=image.int(), image_grid_thw=torch.tensor([[1, GRID, GRID]])
        )
        self._prompt = ids.to(self.device)
        self._first_visual = int(image[0].int().argmax())
        self._positions = positions.to(self.device)
        self._next_position = int(positions.max()) + 1

    def _prefix(self, pixels: torch.Tensor) -> tuple[torch.Tensor, Any]:
        """Last hidden state (B, H) and key-value cache of the prompt for patches (B, 16, 1176)."""
        from transformers import DynamicCache

        count = pixels.shape[0]
        visual = see(self.model.model.visual, pixels.to(self.device))
        words = self._embed(self._prompt).expand(count, -1, -1)
        after = self._first_visual + VISUAL_TOKENS
        embedded = torch.cat([words[:, : self._first_visual], visual, words[:, after:]], dim=1)
        cache = DynamicCache()
        out = self.model.model.language_model(
            inputs_embeds=embedded,
            position_ids=self._positions.expand(3, count, -1),
            past_key_values=cache,
            use_cache=True,
        )
        return out.last_hidden_state[:, -1], cache

    def _embed(self, ids: torch.Tensor) -> torch.Tensor:
        embedded: torch.Tensor = self.model.model.language_model.embed_tokens(ids)
        return embedded

    def _continue(self, ids: torch.Tensor, done: int, cache: Any) -> torch.Tensor:
        """Hidden states (B, L, H) of response tokens (B, L) that follow ``done`` earlier response tokens."""
        first = self._next_position + done
        positions = torch.arange(first, first + ids.shape[1], device=self.device).expand(3, ids.shape[0], -1)
        out = self.model.model.language_model(
            inputs_embeds=self._embed(ids), position_ids=positions, past_key_values=cache, use_cache=True
        )
        hidden: torch.Tensor = out.last_hidden_state
        return hidden

    def response_logits(self, pixels: torch.Tensor, responses: torch.Tensor) -> torch.Tensor:
        """Logits (B*K, L, V) of each response token; ``responses`` (B*K, L), K in a row per picture, right-padded."""
        branches = responses.shape[0] // pixels.shape[0]
        last, cache = self._prefix(pixels)
        if branches > 1:
            cache.batch_repeat_interleave(branches)
            last = last.repeat_interleave(branches, dim=0)
        hidden = torch.cat([last.unsqueeze(1), self._continue(responses[:, :-1], 0, cache)], dim=1)
        logits: torch.Tensor = self.model.lm_head(hidden)
        return logits

    @torch.no_grad()
    def sample(self, pixels: torch.Tensor, count: int, generator: torch.Generator | None) -> torch.Tensor:
        """``count`` responses per picture at temperature 1, or greedy ones without a generator.

        Returns ids (B*count, L), padded after the end token.
        """
        hidden, cache = self._prefix(pixels)
        if count > 1:
            cache.batch_repeat_interleave(count)
            hidden = hidden.repeat_interleave(count, dim=0)
        tokens: list[torch.Tensor] = []
        finished = torch.zeros(hidden.shape[0], dtype=torch.bool, device=self.device)
        for step in range(MAX_RESPONSE):
            logits = self.model.lm_head(hidden)
            if generator is None:
                drawn = logits.argmax(-1)
            else:
                drawn = torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]
            drawn = torch.where(finished, self.pad, drawn)
            tokens.append(drawn)
            finished |= drawn == self.end
            if bool(finished.all()) or step == MAX_RESPONSE - 1:
                break
            hidden = self._continue(drawn.unsqueeze(1), step, cache)[:, -1]
        return torch.stack(tokens, dim=1)

    def texts(self, responses: torch.Tensor) -> list[str]:
        """Responses as veRL decodes them: special tokens removed, tags kept."""
        return list(self.tokenizer.batch_decode(responses, skip_special_tokens=True))


def load_policy(folder: Path, device: str = "cpu") -> PolicyRunner:
    """A policy from a checkpoint folder, in float32. Raises ``OSError`` when there is none."""
    import transformers

    library: Any = transformers
    model = library.Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    return PolicyRunner(model.to(device), library.AutoTokenizer.from_pretrained(folder))
