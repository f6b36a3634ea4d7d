"""Judge request: builds and sends the chat about one pair or several, and reads the reply."""

from collections.abc import Sequence
from typing import Any, TypeAlias

from speciarl.verdict import Judgement, Pair, Unscorable
from speciarl.verifier_server.client.dispatcher import Dispatcher
from speciarl.verifier_server.client.router import Endpoint
from speciarl.verifier_server.config import VerifierConfig
from speciarl.verifier_server.judge.decoding import Decoder
from speciarl.verifier_server.judge.json_list import ManyDecoder
from speciarl.verifier_server.judge.prompt import Prompt

AnyDecoder: TypeAlias = Decoder | ManyDecoder


def template_fields(config: VerifierConfig) -> dict[str, Any]:
    """Request fields that control the chat template; only vLLM takes them.

    Templates without such a switch ignore it.
    """
    return {"chat_template_kwargs": {"enable_thinking": config.thinking}} if config.kind == "vllm" else {}


def chat_body(config: VerifierConfig, prompt: Prompt, decoder: AnyDecoder, *pairs: Pair) -> dict[str, Any]:
    """The body of a chat completion. `request_fields` of the configuration override all others; null removes one."""
    asked = decoder.fields() if isinstance(decoder, Decoder) else decoder.fields(len(pairs))
    body = {
        "model": config.served_name,
        "messages": prompt.messages(*pairs),
        **template_fields(config),
        **asked,
    }
    body.update(config.request_fields)
    return {key: value for key, value in body.items() if value is not None}


async def ask(
    dispatcher: Dispatcher,
    config: VerifierConfig,
    prompt: Prompt,
    decoder: AnyDecoder,
    pairs: Sequence[Pair],
    only: Endpoint | None = None,
    deadline_s: float | None = None,
) -> Sequence[Judgement]:
    """Send one request about some pairs, with the retries of `Dispatcher.ask`: one judgement for each, in their order.

    A reply that leaves out some of several pairs is not retried as a whole: it is up to the caller to ask about those.
    Raises only CancelledError.
    """
    body = chat_body(config, prompt, decoder, *pairs)
    if isinstance(decoder, Decoder):
        return (await dispatcher.ask(body, decoder.read, only, deadline_s),)

    def read(reply: object) -> Sequence[Judgement] | Unscorable:
        judgements = decoder.read(reply, len(pairs))
        # Of a single pair, Unscorable is the reading of the whole reply, which the dispatcher retries.
        alone = judgements[0] if len(judgements) == 1 else None
        return alone if isinstance(alone, Unscorable) else judgements

    reading = await dispatcher.ask(body, read, only, deadline_s, len(pairs))
    return (reading,) * len(pairs) if isinstance(reading, Unscorable) else reading
