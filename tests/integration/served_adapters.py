"""An adapter served by the evaluation's vLLM engine, started once: what it answers, as JSON on standard output.

python served_adapters.py MODEL ADAPTER ADAPTER_THAT_DOES_NOTHING TEST_SET
"""

import asyncio
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from speciarl.evaluation.config import DatasetConfig, EngineConfig, ModelConfig, SamplingConfig
from speciarl.evaluation.models import identify, logits_differ
from speciarl.evaluation.predict import vllm_engine
from speciarl.evaluation.predict.answer import QuestionFailed
from speciarl.evaluation.predict.question import Question, labels, questions
from speciarl.evaluation.predict.sampling import VLLM_DEFAULTS, resolve

SEEDS = [70_000, 70_001, 70_002, 70_003]


async def main(model: str, adapter: str, idle: str, test_set: str) -> dict[str, Any]:
    """Start the engine, which proves the adapter, and ask."""
    from vllm import SamplingParams
    from vllm.lora.request import LoRARequest

    from data_prep.images.encode import upright

    memory = {"enforce_eager": True, "max_num_seqs": 8, "kv_cache_memory_bytes": 128 << 20}
    config = EngineConfig(dtype="float32", max_model_len=64, gpu_memory_utilization=0.1, args=memory)
    found = identify(ModelConfig(path=model, adapter=adapter), print)
    engine = vllm_engine.VllmEngine(found, config, Path(idle).parent / "cache", print)
    await engine.start()
    logprobs = [await engine._first_token(with_adapter) for with_adapter in (False, False, True)]
    first, second = questions(Path(test_set), labels("test", DatasetConfig(file=test_set)), None)
    sampling, _ = resolve(SamplingConfig(n=4, temperature=1.0, max_tokens=12), {})

    async def answers(of: Question, seeds: list[int]) -> list[dict[str, Any]]:
        images = [upright(image) for image in of.images]
        return [dataclasses.asdict(one) for one in await engine.answer(of, images, sampling, seeds)]

    together = await answers(first, SEEDS)
    alone = [(await answers(first, [seed]))[0] for seed in reversed(SEEDS)]
    try:
        too_long = str(await answers(second, SEEDS))
    except QuestionFailed as failure:
        too_long = f"{failure.failure}: {failure.detail}"
    prompt = engine._tokenizer.encode(engine._render([{"role": "user", "content": "Name it."}]))
    engine._adapter = LoRARequest("idle", 2, idle)
    nothing = await engine._first_token(True)
    await engine.aclose()
    return {
        "prompt": prompt,
        "trained": logprobs[2],
        "nothing": nothing,
        "nothing_differs": logits_differ(logprobs[0], logprobs[1], nothing),
        "together": together,
        "alone": alone[::-1],
        "too_long": too_long,
        "defaults": {name: getattr(SamplingParams(), name) for name in VLLM_DEFAULTS},
    }


if __name__ == "__main__":
    print("ANSWERS " + json.dumps(asyncio.run(main(*sys.argv[1:]))))
