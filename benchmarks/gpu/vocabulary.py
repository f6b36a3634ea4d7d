"""Tokenizers for models with random weights: as many tokens as the embedding has rows, so that any id can be decoded.

The policy's holds whole answers as single tokens, e.g. ``<answer>pale red ring</answer>``. That is how a model that
draws tokens at random gives answers that a judge can be asked about. The judge's has learnt the words of its prompt, so
that a verdict costs about as many tokens as with a real judge.
"""

import itertools
import re
import string
from collections.abc import Sequence
from typing import Any

from speciarl.laptop import tokenizer as tok
from speciarl.verdict import Pair
from speciarl.verifier_server.judge.prompt import load_prompt

BYTES = 256


def answer_token(name: str) -> str:
    """The token that gives an answer."""
    return f"<answer>{name}</answer>"


def words_of(text: str) -> list[str]:
    """The words of a text as the tokenizer splits them, each once, with the space before it."""
    return list(dict.fromkeys(re.findall(r" ?[^\W\d_]+", text)))


def policy_tokenizer(size: int, prompt: str, names: Sequence[str]) -> Any:
    """A tokenizer of `size` tokens: bytes, the prompt's words, made-up words, one answer for each name, special ones.

    Raises ValueError when that many do not fit.
    """
    answers = [answer_token(name) for name in names]
    wanted = size - BYTES - len(tok.SPECIAL_TOKENS) - len(answers)
    known = [word for word in words_of(f"system user assistant {prompt}") if len(word) > 1]
    made_up = (f" {''.join(letters)}" for letters in itertools.product(string.ascii_lowercase, repeat=4))
    words = list(itertools.islice(dict.fromkeys(itertools.chain(known, made_up)), wanted)) if wanted > 0 else []
    tokenizer = tok.build_tokenizer(words, answers)
    if len(tokenizer) != size:
        raise ValueError(f"a vocabulary of {size} has no room for {len(answers)} answers: it came to {len(tokenizer)}")
    return tokenizer


def judge_tokenizer(prompt_name: str, names: Sequence[str]) -> Any:
    """A tokenizer that knows the words of a judge prompt and of the names to be judged, and falls back to bytes."""
    messages = load_prompt(prompt_name).messages(Pair("truth", "prediction"))
    text = " ".join([*(message["content"] for message in messages), *names])
    words = [word.strip() for word in words_of(text)]
    return tok.build_merging_tokenizer([*words, *(f" {word}" for word in words)])
