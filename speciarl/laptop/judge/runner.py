"""Forward passes of the miniature judge, fast and in plain PyTorch.

All prompts begin alike, so the common beginning is run once per batch and its key-value cache is shared.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import torch

from speciarl.category import LABELS, Category
from speciarl.laptop import tokenizer as tok
from speciarl.laptop.tokenizer import token_id
from speciarl.verdict import Pair
from speciarl.verifier_server.judge.prompt import Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM

IGNORED = -100


class JudgeRunner:
    """Wraps a judge, its tokenizer and the prompt that it is asked with."""

    def __init__(self, model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, prompt: Prompt) -> None:
        """Raises ``ValueError`` when two labels begin with the same token."""
        self.model = model
        self.tokenizer = tokenizer
        self.prompt = prompt
        self.device = next(model.parameters()).device
        end = token_id(tokenizer, tok.IM_END)
        self._answers = [[*tokenizer.encode(label), end] for label in LABELS]
        self._first = [answer[0] for answer in self._answers]
        if len(set(self._first)) != len(LABELS):
            raise ValueError("two labels share their first token under the judge's tokenizer")
        self._comma = token_id(tokenizer, '",')
        # The closing quote of the prediction stands before the end of turn and the assistant's header.
        header = tokenizer.encode(f"{tok.IM_END}\n{tok.IM_START}assistant\n")
        self._closing = len(header) + 1
        probes = [self.prompt_ids(Pair("a", "b")), self.prompt_ids(Pair("c", "d"))]
        self._shared = [ours for ours, theirs in takewhile(lambda both: both[0] == both[1], zip(*probes, strict=False))]

    def prompt_ids(self, pair: Pair) -> list[int]:
        """Token ids of the whole prompt, exactly as a server renders it."""
        text = self.tokenizer.apply_chat_template(
            self.prompt.messages(pair), add_generation_prompt=True, tokenize=False
        )
        assert isinstance(text, str)
        return list(self.tokenizer.encode(text))

    def answer_ids(self, category: Category) -> list[int]:
        """Token ids of a label with the end token."""
        return self._answers[category]

    def _hidden(self, rows: Sequence[list[int]]) -> tuple[torch.Tensor, ...]:
        """Hidden states (B, L, H) after the shared beginning, for rows that all start with it; right-padded.

        One tensor for the embedding and one per layer, the last one normalised.
        """
        from transformers import DynamicCache

        skip = len(self._shared)
        if any(row[:skip] != self._shared for row in rows):
            raise ValueError("a prompt does not begin like the others")
        tails = [row[skip:] for row in rows]
        width = max(map(len, tails))
        ids = torch.tensor([tail + [0] * (width - len(tail)) for tail in tails], device=self.device)
        cache: Any = DynamicCache()
        start = torch.tensor([self._shared], device=self.device)
        self.model.model(input_ids=start, past_key_values=cache, use_cache=True)
        cache.batch_repeat_interleave(len(rows))
        out = self.model.model(input_ids=ids, past_key_values=cache, use_cache=True, output_hidden_states=True)
        hidden: tuple[torch.Tensor, ...] = out.hidden_states
        return hidden

    def loss(self, rows: Sequence[tuple[list[int], Category]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean cross-entropy of the label tokens for (prompt ids, category) rows.

        Also the hidden states (2B, H) half-way up where the ground truths, then the predictions, end.
        """
        whole = [prompt + self._answers[category] for prompt, category in rows]
        layers = self._hidden([row[:-1] for row in whole])
        hidden = layers[-1]
        targets = torch.full(hidden.shape[:2], IGNORED, device=self.device)
        for index, (prompt, category) in enumerate(rows):
            answer = self._answers[category]
            first = len(prompt) - 1 - len(self._shared)
            targets[index, first : first + len(answer)] = torch.tensor(answer, device=self.device)
        chosen = targets != IGNORED
        loss = torch.nn.functional.cross_entropy(self.model.lm_head(hidden[chosen]), targets[chosen])
        skip = len(self._shared)
        truth_ends = [prompt.index(self._comma, skip) - skip for prompt, _ in rows]
        prediction_ends = [len(prompt) - self._closing - skip for prompt, _ in rows]
        middle = layers[len(layers) // 2]
        batch = torch.arange(len(rows), device=self.device)
        ends = [middle[batch, torch.tensor(at, device=self.device)] for at in (truth_ends, prediction_ends)]
        return loss, torch.cat(ends)

    @torch.no_grad()
    def verdicts(self, pairs: Sequence[Pair], batch: int = 512) -> list[Category]:
        """The label whose first token is most likely, as first-token judging does."""
        categories: list[Category] = []
        first = torch.tensor(self._first, device=self.device)
        for begin in range(0, len(pairs), batch):
            rows = [self.prompt_ids(pair) for pair in pairs[begin : begin + batch]]
            hidden = self._hidden(rows)[-1]
            ends = torch.tensor([len(row) - 1 - len(self._shared) for row in rows], device=self.device)
            last = hidden[torch.arange(len(rows), device=self.device), ends]
            scores = self.model.lm_head(last)[:, first]
            categories += [Category(index) for index in scores.argmax(-1).tolist()]
        return categories
