"""A judge that thinks, on real vLLM with a reasoning parser: the label is constrained, the thought before it is free.

The laptop policy stands in for the judge: its tokenizer holds the marks of a thought and it knows how to end one. What
it thinks of a pair is worth nothing; where its thought and its label end up is the point.
"""

from collections.abc import Iterator
from functools import partial
from importlib import resources
from typing import Any

import pytest

from speciarl.category import LABELS
from speciarl.cpu import environment, stack
from speciarl.errors import VerifierStartError
from speciarl.verdict import Pair, Reason, Unscorable, Verdict
from speciarl.verifier_server.config import VerifierConfig, parse_config
from speciarl.verifier_server.judge.decoding import Decoder, Mode
from speciarl.verifier_server.judge.reasoning import shows_thought
from speciarl.verifier_server.judge.request import chat_body
from speciarl.verifier_server.llm_verifier import LLMVerifier
from speciarl.verifier_server.pool.vllm_server import Replica, vllm_command

pytestmark = pytest.mark.anyio

MODEL = str(resources.files("speciarl.laptop") / "models" / "policy")
PAIRS = [Pair("dog face", prediction) for prediction in ("cat face", "animal mammal", "dog face", "none")]
STARTUP_S = 240.0
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n<think> clear"
)
"""Opens the thought, as the templates of many thinking models do, so that only its closing mark is generated."""


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def thinking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VerifierConfig]:
    """The configuration of the running server."""
    from transformers import AutoTokenizer

    directory = tmp_path_factory.mktemp("thinking")
    template, prompt = directory / "template.jinja", directory / "prompt.yaml"
    template.write_text(TEMPLATE)
    prompt.write_text("version: 1\nsystem: Grade.\n")
    tokenizer: Any = AutoTokenizer.from_pretrained(MODEL)
    engine: dict[str, Any] = {"enforce_eager": True, "max_num_seqs": 8, "chat_template": str(template)}
    # Nobody sends it pictures. Otherwise vLLM tries the largest that fit, which takes 15 GB on a CPU: next to another
    # test, Ray then kills that one's actors for want of memory.
    engine["limit_mm_per_prompt"] = '{"image": 0, "video": 0}'
    pool: dict[str, Any] = {"dtype": "float32", "gpus_per_replica": 0, "max_model_len": 512}
    if not stack.active():
        pool["gpus_per_replica"] = 1
        engine |= {"gpu_memory_utilization": 0.1, "kv_cache_memory_bytes": 2**30}  # vLLM measures nothing then
    config = parse_config(
        {
            "model": MODEL,
            "served_model_name": "thinker",
            "prompt": str(prompt),
            "max_string_chars": 60,
            "probe": False,
            "exact_shortcut": False,
            "thinking": True,
            "thinking_tokens": 64,
            # An answer in the policy's own form would take the place of the end of the thought.
            "request_fields": {"logit_bias": {str(tokenizer.convert_tokens_to_ids("<answer>")): -100}},
            "pool": pool | {"engine_args": engine | {"reasoning_parser": "deepseek_r1"}},
        }
    )
    assert config.pool is not None
    environ = environment.variables() if stack.active() else {}
    server = Replica(partial(vllm_command, config, config.pool), directory / "judge.log", env=environ)
    server.start()
    try:
        server.wait_ready(STARTUP_S)
        yield config.model_copy(update={"endpoints": (server.url,), "pool": None})
    finally:
        server.stop()


async def test_the_label_is_constrained_after_the_thought(thinking: VerifierConfig) -> None:
    verifier = LLMVerifier(thinking)
    await verifier.start()
    try:
        assert verifier.decoding == "label_choice"
        decoder = Decoder(Mode.LABEL_CHOICE, max_tokens=64)
        for pair in PAIRS:
            judgement = await verifier.verify(pair)
            assert isinstance(judgement, Verdict), judgement
            reply: Any = await verifier.endpoints[0].client.chat(
                chat_body(verifier.config, verifier.prompt, decoder, pair)
            )
            message = reply["choices"][0]["message"]
            assert message["reasoning"].strip()
            assert message["content"] in LABELS
            assert shows_thought(reply)
    finally:
        await verifier.aclose()


async def test_a_thought_without_room_is_no_verdict(thinking: VerifierConfig) -> None:
    verifier = LLMVerifier(thinking)
    await verifier.start()
    try:
        cut = Decoder(Mode.LABEL_CHOICE, max_tokens=1)
        body = chat_body(verifier.config, verifier.prompt, cut, PAIRS[0])
        judgement = cut.read(await verifier.endpoints[0].client.chat(body))
    finally:
        await verifier.aclose()
    assert isinstance(judgement, Unscorable)
    assert judgement.reason is Reason.MALFORMED
    assert "raise `thinking_tokens`" in judgement.detail
    with pytest.raises(VerifierStartError, match="raise `thinking_tokens`"):
        await LLMVerifier(thinking.model_copy(update={"thinking_tokens": 1, "retries": 0})).start()
