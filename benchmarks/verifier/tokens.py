"""Tokens per verdict of every shipped prompt, and of many pairs per request against one.

    python benchmarks/verifier/tokens.py

No server is needed: texts are counted with the laptop judge's tokenizer and with a general one, Mistral's Tekken
(131,072 entries), which comes with the CPU stack; without it that column is left out. Pairs are the prompt's own golden
pairs. `cached` is what all requests begin with, in whole blocks of 16 tokens as vLLM's prefix cache keeps them; `fresh`
is the rest of the request. For Tekken the marks between the messages of a chat are not counted.
"""

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from pathlib import Path
from statistics import mean
from typing import Any

from rich.console import Console
from rich.table import Table

from speciarl.verdict import Pair
from speciarl.verifier_server.judge.prompt import Messages, Prompt, load_prompt, pair_ids, shipped_prompts

BLOCK = 16
SIZES = (1, 5, 10, 20, 50)
Tokenize = Callable[[str], Sequence[int]]
Render = Callable[[Messages], Sequence[int]]


def laptop() -> tuple[Tokenize, Render]:
    """The laptop judge's tokenizer, and its chat template."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(str(resources.files("speciarl.laptop") / "models" / "judge"))

    def encode(text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False))

    def render(messages: Messages) -> list[int]:
        return encode(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    return encode, render


def tekken() -> tuple[Tokenize, Render] | None:
    """Mistral's general tokenizer; None where it is not installed."""
    try:
        import mistral_common
        from mistral_common.tokens.tokenizers.tekken import Tekkenizer
    except ImportError:
        return None
    tokenizer = Tekkenizer.from_file(Path(mistral_common.__file__).parent / "data" / "tekken_240911.json")

    def encode(text: str) -> list[int]:
        return list(tokenizer.encode(text, bos=False, eos=False))

    return encode, lambda messages: [token for message in messages for token in encode(message["content"])]


def pairs_of(prompt: Prompt) -> Iterator[Pair]:
    """The golden pairs, over and over."""
    return itertools.cycle([golden.pair for golden in prompt.golden])


def common(rows: Sequence[Sequence[int]]) -> int:
    """Tokens with which all rows begin, in whole blocks."""
    columns = itertools.takewhile(lambda column: len(set(column)) == 1, zip(*rows, strict=False))
    return sum(1 for _ in columns) // BLOCK * BLOCK


def single(prompt: Prompt, tokenize: Tokenize, render: Render) -> tuple[float, float, float]:
    """Cached, fresh and generated tokens of a verdict; generated when the whole label is asked for (`choice`)."""
    rows = [render(prompt.messages(golden.pair)) for golden in prompt.golden]
    cached = common(rows)
    return cached, mean(map(len, rows)) - cached, mean(len(tokenize(label)) for label in prompt.scheme.labels)


def many(prompt: Prompt, size: int, tokenize: Tokenize, render: Render) -> tuple[float, float, float]:
    """The same for requests of `size` pairs, divided by their number."""
    stream = pairs_of(prompt)
    rows = [render(prompt.messages(*itertools.islice(stream, size))) for _ in range(20)]
    cached = min(common(rows), len(render(prompt.messages(Pair("", "")))) // BLOCK * BLOCK)
    words = itertools.cycle(prompt.scheme.labels)
    entries = [{"id": name, "category": next(words)} for name in pair_ids(size)]
    reply = len(tokenize(json.dumps({"verdicts": entries})))
    return cached / size, (mean(map(len, rows)) - cached) / size, reply / size


def main() -> None:
    """Print one table per tokenizer."""
    console = Console()
    tokenizers = {"laptop judge": laptop(), "Tekken": tekken()}
    for name, both in tokenizers.items():
        if both is None:
            console.print(f"{name}: not installed")
            continue
        table = Table("prompt", "pairs", "cached", "fresh", "generated", title=f"{name}: tokens per verdict")
        for prompt in map(load_prompt, shipped_prompts()):
            if prompt.format == "single":
                cached, fresh, generated = single(prompt, *both)
                shown = f"1 or {generated:.1f}" if generated > 1 else "1"
                table.add_row(prompt.name, "1", f"{cached:.0f}", f"{fresh:.1f}", shown)
                continue
            for size in SIZES:
                row = many(prompt, size, *both)
                table.add_row(prompt.name, str(size), *(f"{value:.1f}" for value in row))
        console.print(table)


if __name__ == "__main__":
    main()
