"""Label tokens: finds the first token of each label at the place where the judge's reply begins."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from speciarl.verdict import Reason, Unscorable
from speciarl.verifier_server.client.http import Client, Failure
from speciarl.verifier_server.config import VerifierConfig
from speciarl.verifier_server.judge.first_token import first_difference
from speciarl.verifier_server.judge.prompt import SAMPLE_PAIR, Messages, Prompt
from speciarl.verifier_server.judge.request import template_fields


async def tokenize_chat(client: Client, config: VerifierConfig, messages: Messages) -> tuple[list[int], int] | Failure:
    """Token ids of a chat up to where the reply begins, and the context length, both from vLLM's ``/tokenize``."""
    body = {
        "model": config.served_name,
        "messages": messages,
        "add_generation_prompt": True,
        **template_fields(config),
    }
    reply = await client.post_root("tokenize", body)
    if isinstance(reply, Failure):
        return reply
    tokens = _ids(reply)
    limit = reply.get("max_model_len") if isinstance(reply, dict) else None
    if tokens is None or not isinstance(limit, int):
        return _unreadable(client, "tokenize")
    return tokens, limit


async def server_first_tokens(client: Client, config: VerifierConfig, prompt: Prompt) -> tuple[int, ...] | Failure:
    """First token of each of the prompt's labels, in their order, under the server's own tokenizer and chat
    template.

    The labels are tokenized as continuations of the rendered chat, because many tokenizers treat a word at the start of
    a text differently from one that follows something.
    """
    chat = await tokenize_chat(client, config, prompt.messages(SAMPLE_PAIR))
    if isinstance(chat, Failure):
        return chat
    prompt_tokens, _ = chat
    rendered = await client.post_root("detokenize", {"model": config.served_name, "tokens": prompt_tokens})
    if isinstance(rendered, Failure):
        return rendered
    text = rendered.get("prompt") if isinstance(rendered, dict) else None
    if not isinstance(text, str):
        return _unreadable(client, "detokenize")
    firsts = []
    for label in prompt.scheme.labels:
        continued = await _tokenize(client, config, text + label)
        if isinstance(continued, Failure):
            return continued
        first = first_difference(prompt_tokens, continued)
        if first is None:
            # The tokenizer cannot reproduce its own chat text; a label on its own is the next best context.
            alone = await _tokenize(client, config, label)
            if isinstance(alone, Failure):
                return alone
            first = alone[0] if alone else None
        if first is None:
            return _unreadable(client, "tokenize")
        firsts.append(first)
    return tuple(firsts)


def local_first_tokens(model_directory: str | Path, prompt: Prompt, thinking: bool) -> tuple[int, ...]:
    """The same from a model directory, without a server. Raises OSError or ValueError when it holds no tokenizer."""
    from transformers import AutoTokenizer  # heavy, and needed only to refuse a judge before it is loaded

    tokenizer: Any = AutoTokenizer.from_pretrained(str(model_directory), local_files_only=True)
    messages = prompt.messages(SAMPLE_PAIR)
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, enable_thinking=thinking)
    prompt_tokens = _encode(tokenizer, text)
    firsts = []
    for label in prompt.scheme.labels:
        first = first_difference(prompt_tokens, _encode(tokenizer, text + label))
        firsts.append(_encode(tokenizer, label)[0] if first is None else first)
    return tuple(firsts)


async def _tokenize(client: Client, config: VerifierConfig, text: str) -> list[int] | Failure:
    body = {"model": config.served_name, "prompt": text, "add_special_tokens": False}
    reply = await client.post_root("tokenize", body)
    if isinstance(reply, Failure):
        return reply
    tokens = _ids(reply)
    return _unreadable(client, "tokenize") if tokens is None else tokens


def _encode(tokenizer: Any, text: str) -> Sequence[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return ids


def _ids(reply: object) -> list[int] | None:
    tokens = reply.get("tokens") if isinstance(reply, dict) else None
    if isinstance(tokens, list) and all(isinstance(token, int) for token in tokens):
        return tokens
    return None


def _unreadable(client: Client, route: str) -> Failure:
    return Failure(Unscorable(Reason.MALFORMED, f"{client.url}: unexpected reply from /{route}"), transient=False)
