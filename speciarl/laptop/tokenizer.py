"""Byte-level tokenizers whose vocabulary is the miniature world's words.

Like Qwen2's tokenizer they split with Qwen's regular expression and fall back to bytes, so any text can be
encoded. A word of the world costs exactly one token: the policy's vocabulary holds whole words instead of merges
(no unused rows that it could sample), the judge's has learnt merges, as its model type demands.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

END_OF_TEXT, IM_START, IM_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
VISION_START, VISION_END, VISION_PAD = "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"
IMAGE_PAD, VIDEO_PAD = "<|image_pad|>", "<|video_pad|>"
SPECIAL_TOKENS = (END_OF_TEXT, IM_START, IM_END, VISION_START, VISION_END, VISION_PAD, IMAGE_PAD, VIDEO_PAD)
TAGS = ("<think>", "</think>", "<answer>", "</answer>")
"""Ordinary added tokens: decoding with ``skip_special_tokens=True`` must keep them."""

_QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_TURNS = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' or 'image' in part or 'image_url' in part %}"
    "<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'video' or 'video' in part %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
)
CHAT_TEMPLATE = _TURNS + "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
"""Qwen's turn format without a default system message: every prompt token is paid for in each rollout."""


def build_tokenizer(words: Iterable[str], tags: Iterable[str] = ()) -> PreTrainedTokenizerFast:
    """A tokenizer with one token for each string of ``words`` (give a leading space where the text has one).

    Ids: 256 bytes, then the words in the given order, then ``tags``, then the special tokens. Raises
    ``ValueError`` for a word that the splitting rule would break up.
    """
    # Both packages ship without type information.
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers  # type: ignore[import-untyped]
    from transformers import PreTrainedTokenizerFast

    wrap: Any = PreTrainedTokenizerFast

    splitter = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_QWEN_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    vocabulary = {symbol: index for index, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    for word in words:
        pieces = splitter.pre_tokenize_str(word)
        if len(pieces) != 1:
            raise ValueError(f"{word!r} is not one word for the tokenizer but {len(pieces)}")
        vocabulary.setdefault(pieces[0][0], len(vocabulary))
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken(tag, normalized=False, special=False) for tag in tags])
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL_TOKENS])
    wrapped: PreTrainedTokenizerFast = wrap(
        tokenizer_object=tokenizer,
        eos_token=IM_END,
        pad_token=END_OF_TEXT,
        extra_special_tokens=list(SPECIAL_TOKENS[1:]),
        model_max_length=4096,
        clean_up_tokenization_spaces=False,
    )
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def build_merging_tokenizer(words: Iterable[str]) -> Any:
    """A ``Qwen2Tokenizer`` whose learnt merges make each string of ``words`` one token.

    Transformers loads any tokenizer of a model of type ``qwen2`` as this class, which rebuilds the BPE from vocabulary
    and merges alone: ``ignore_merges`` would be lost there without a word. Raises ``ValueError`` for a word that the
    splitting rule would break up.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import Qwen2Tokenizer

    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    forms = [byte_level.pre_tokenize_str(word)[0][0] for word in dict.fromkeys(words)]
    trainer = trainers.BpeTrainer(
        vocab_size=10**6,  # no limit: every word is merged to the end
        min_frequency=1,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    learner = Tokenizer(models.BPE())
    learner.train_from_iterator(forms, trainer)
    learnt = json.loads(learner.to_str())["model"]
    wrap: Any = Qwen2Tokenizer
    tokenizer = wrap(
        vocab=learnt["vocab"],
        merges=[tuple(pair) for pair in learnt["merges"]],
        unk_token=None,
        eos_token=IM_END,
        pad_token=END_OF_TEXT,
        extra_special_tokens=list(SPECIAL_TOKENS[1:]),
        model_max_length=4096,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    decode = decoders.ByteLevel().decode
    for form in forms:
        if len(tokenizer.encode(decode([form]))) != 1:
            raise ValueError(f"{decode([form])!r} is not one word for the tokenizer")
    return tokenizer


def token_id(tokenizer: PreTrainedTokenizerFast, token: str) -> int:
    """Id of a single token. Raises ``ValueError`` when the vocabulary does not hold it."""
    found = tokenizer.get_vocab().get(token)
    if found is None:
        raise ValueError(f"the tokenizer has no token {token!r}")
    return int(found)
