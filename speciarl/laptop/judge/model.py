"""Miniature judge: a real Qwen2 language model with about one million parameters, and its tokenizer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from speciarl.category import LABELS
from speciarl.laptop import tokenizer as tok

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM

PROMPT_NAME = "compact"
"""The judge prompt of ``speciarl.verifier_server`` that the judge is trained on, character by character."""
_JSON_PIECES = ('{"', '":', ' "', '",', '"}', ' ""}', "ground", "_truth", "prediction")
_PROMPT_WORDS = ("system", "user", "assistant", "Grade", " the", " prediction", " against", " ground", " truth", ".")


def build_judge_tokenizer(words: Iterable[str]) -> PreTrainedTokenizerFast:
    """Tokenizer of the judge: each word with a leading space, and without one for the start of a JSON string."""
    labels = [piece for label in LABELS for piece in (label.split()[0], *(f" {word}" for word in label.split()[1:]))]
    forms = [form for word in words for form in (word, f" {word}")]
    tokenizer: PreTrainedTokenizerFast = tok.build_merging_tokenizer((*_JSON_PIECES, *_PROMPT_WORDS, *labels, *forms))
    return tokenizer


def build_judge(tokenizer: PreTrainedTokenizerFast, device: str = "cpu") -> Qwen2ForCausalLM:
    """A randomly initialised float32 judge (seed torch first)."""
    import transformers

    library: Any = transformers  # its classes carry no complete type information

    config = library.Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    model: Qwen2ForCausalLM = library.Qwen2ForCausalLM(config).to(device)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model
