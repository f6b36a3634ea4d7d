"""The chat request for one pair."""

from typing import Any

from speciarl.verdict import Pair
from speciarl.verifier_server.config import VerifierConfig
from speciarl.verifier_server.decoding import Decoder
from speciarl.verifier_server.prompt import Prompt


def template_fields(config: VerifierConfig) -> dict[str, Any]:
    """Request fields that steer the chat template; only vLLM takes them.

    Templates without such a switch ignore it.
    """
    return {"chat_template_kwargs": {"enable_thinking": config.thinking}} if config.kind == "vllm" else {}


def chat_body(config: VerifierConfig, prompt: Prompt, decoder: Decoder, pair: Pair) -> dict[str, Any]:
    """The body of a chat completion. `request_fields` of the configuration have the last word; null removes
    one."""
    body = {
        "model": config.served_name,
        "messages": prompt.messages(pair),
        **template_fields(config),
        **decoder.fields(),
    }
    body.update(config.request_fields)
    return {key: value for key, value in body.items() if value is not None}
