"""vLLM with adapters: what it answers with each of them to one prompt, by one engine, as JSON on standard output.

python served_adapters.py MODEL ADAPTER...
"""

import json
import sys
from typing import TYPE_CHECKING

from speciarl.cpu import stack
from speciarl.evaluation.models import logits_differ

if TYPE_CHECKING:
    from vllm import LLM
    from vllm.lora.request import LoRARequest

PROMPT = [5, 6, 7, 8]
TOP = 20


class Engine:
    """vLLM, asked for the first token after the prompt."""

    def __init__(self, llm: "LLM", adapter: "LoRARequest") -> None:
        self.llm = llm
        self.adapter = adapter

    def first_token_logprobs(self, adapter: bool) -> dict[int, float]:
        """Log-probabilities of the likeliest first tokens, by token id."""
        from vllm import SamplingParams

        sampling = SamplingParams(temperature=0, max_tokens=1, logprobs=TOP, detokenize=False)
        lora = self.adapter if adapter else None
        [request] = self.llm.generate([{"prompt_token_ids": PROMPT}], sampling, lora_request=lora, use_tqdm=False)
        return {token: found.logprob for token, found in request.outputs[0].logprobs[0].items()}


def main(model: str, adapters: list[str]) -> None:
    """Print, per adapter, whether it changes the logits, and the log-probabilities with it."""
    from vllm import LLM
    from vllm.lora.request import LoRARequest

    memory = {} if stack.active() else {"gpu_memory_utilization": 0.1}
    llm = LLM(
        model, dtype="float32", enforce_eager=True, max_model_len=64, max_num_seqs=2, enable_lora=True, max_lora_rank=8,
        kv_cache_memory_bytes=128 << 20, limit_mm_per_prompt={"image": 0, "video": 0}, **memory,
    )  # fmt: skip
    answers = []
    for number, path in enumerate(adapters, start=1):
        engine = Engine(llm, LoRARequest(f"adapter-{number}", number, path))
        base, again, adapted = (engine.first_token_logprobs(with_adapter) for with_adapter in (False, False, True))
        answers.append({"differs": logits_differ(base, again, adapted), "logprobs": adapted})
    print("ANSWERS " + json.dumps(answers))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
