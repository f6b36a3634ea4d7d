"""An OpenAI-compatible server answers: what it is sent, and what becomes of its failures. The server is a fake."""

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from listening import listening
from scripted_engine import picture

from data_prep.images.encode import upright
from speciarl.errors import ConfigError
from speciarl.evaluation.config import DatasetConfig, EngineConfig, ModelConfig, SamplingConfig
from speciarl.evaluation.predict.answer import Answer, EngineDied, Failure, QuestionFailed
from speciarl.evaluation.predict.endpoint_engine import EndpointEngine
from speciarl.evaluation.predict.question import Label, Question, labels, questions
from speciarl.evaluation.predict.sampling import resolve

QUESTION = Question(Label(0, "id", "birds", "robin", ("robin",)), (("user", "Name a bird."),), ())
Reply = Callable[[dict[str, Any]], web.Response]


def completion(text: str, reason: str = "stop") -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {
        "choices": [{"index": 0, "message": message, "finish_reason": reason}],
        "usage": {"prompt_tokens": 30, "completion_tokens": 4},
    }


@asynccontextmanager
async def served(
    reply: Reply, models_status: int = 200, owner: str = "me"
) -> AsyncIterator[tuple[str, list[dict[str, Any]]]]:
    """Base URL of a server with one model, and the bodies that it is sent."""
    bodies: list[dict[str, Any]] = []

    async def chat(request: web.Request) -> web.Response:
        bodies.append(await request.json())
        return reply(bodies[-1])

    async def models(request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "m", "owned_by": owner}]}, status=models_status)

    app = web.Application()
    app.router.add_post("/v1/chat/completions", chat)
    app.router.add_get("/v1/models", models)
    async with listening(app) as url:
        yield f"{url}/v1", bodies


def question(file: Path) -> Question:
    return next(questions(file, labels("birds", DatasetConfig(file=str(file))), None))


async def ask(
    url: str, of: Question, sampling: SamplingConfig, seeds: list[int | None], deadline_s: float = 5
) -> list[Answer]:
    engine = EndpointEngine(ModelConfig(path="m", endpoint=url), EngineConfig(window=8, request_deadline_s=deadline_s))
    await engine.start()
    try:
        effective, _ = resolve(sampling, {})
        return await engine.answer(of, [upright(picture(0))], effective, seeds)
    finally:
        await engine.aclose()


def run(reply: Reply, body: Callable[[str, list[dict[str, Any]]], Awaitable[Any]], models_status: int = 200) -> Any:
    async def inside() -> Any:
        async with served(reply, models_status) as (url, bodies):
            return await body(url, bodies)

    return asyncio.run(inside())


def test_each_answer_is_a_request_with_its_own_seed(birds: Path) -> None:
    async def body(url: str, bodies: list[dict[str, Any]]) -> None:
        sampling = SamplingConfig(n=2, temperature=0.6, top_p=0.95, top_k=7, max_tokens=50)
        answers = await ask(url, question(birds), sampling, [5, 6])
        assert sorted(answers, key=lambda one: one.seed or 0) == [
            Answer(5, "seed 5", 4, 30, "stop", 8, 6), Answer(6, "seed 6", 4, 30, "stop", 8, 6)
        ]  # fmt: skip
        one = bodies[0]
        assert (one["temperature"], one["top_p"], one["top_k"], one["max_tokens"]) == (0.6, 0.95, 7, 50)
        assert "min_p" not in one
        image, text = one["messages"][0]["content"]
        kind, data = image["image_url"]["url"].split(";base64,")
        assert (kind, base64.b64decode(data), text) == (
            "data:image/png", picture(0), {"type": "text", "text": "Name it."}
        )  # fmt: skip

    run(lambda sent: web.json_response(completion(f"seed {sent['seed']}")), body)


def test_a_greedy_answer_is_asked_for_without_a_seed_and_may_be_cut_off(birds: Path) -> None:
    async def body(url: str, bodies: list[dict[str, Any]]) -> None:
        [answer] = await ask(url, question(birds), SamplingConfig(), [None])
        assert (answer.seed, answer.finish_reason) == (None, "length")
        assert "seed" not in bodies[0]

    run(lambda sent: web.json_response(completion("long", "length")), body)


@pytest.mark.parametrize(
    ("status", "message", "failure"),
    [
        (400, "This model's maximum context length is 4096 tokens", Failure.PROMPT_TOO_LONG),
        (400, "unknown field", Failure.REFUSED),
        (404, "no such model", Failure.ENGINE),
        (502, "bad gateway", Failure.ENGINE),
        (503, "busy", Failure.ENGINE),
    ],
)
def test_failures_are_typed(birds: Path, status: int, message: str, failure: Failure) -> None:
    async def body(url: str, bodies: list[dict[str, Any]]) -> None:
        with pytest.raises(QuestionFailed) as caught:
            await ask(url, question(birds), SamplingConfig(), [None], deadline_s=0.5)
        assert caught.value.failure in (failure, Failure.TIMEOUT if status >= 500 else failure)

    run(lambda sent: web.json_response({"error": {"message": message}}, status=status), body)


def test_a_reply_that_is_no_completion_is_a_failure(birds: Path) -> None:
    async def body(url: str, bodies: list[dict[str, Any]]) -> None:
        with pytest.raises(QuestionFailed) as caught:
            await ask(url, question(birds), SamplingConfig(), [None], deadline_s=0.5)
        assert caught.value.failure in (Failure.ENGINE, Failure.TIMEOUT)

    run(lambda sent: web.json_response({"choices": []}), body)


def test_an_answer_that_was_ended_early_is_none(birds: Path) -> None:
    async def body(url: str, bodies: list[dict[str, Any]]) -> None:
        with pytest.raises(QuestionFailed) as caught:
            await ask(url, question(birds), SamplingConfig(), [None], deadline_s=0.5)
        assert not caught.value.failure.lasts

    run(lambda sent: web.json_response(completion("half an ans", "abort")), body)


def test_vllm_is_sent_every_field_since_it_would_take_the_models_own() -> None:
    async def inside() -> bool:
        async with served(lambda sent: web.json_response({}), owner="vllm") as (url, _):
            engine = EndpointEngine(ModelConfig(path="m", endpoint=url), EngineConfig())
            await engine.start()
            effective, _ = resolve(SamplingConfig(), {})
            body = engine._body(QUESTION, effective, None)
            await engine.aclose()
            return {"top_k", "min_p", "repetition_penalty"} <= body.keys()

    assert asyncio.run(inside())


def test_a_wrong_key_is_told_before_the_first_question(birds: Path) -> None:
    async def body(url: str, bodies: list[dict[str, Any]]) -> None:
        with pytest.raises(ConfigError, match="the endpoint cannot be used"):
            await ask(url, question(birds), SamplingConfig(), [None])
        assert bodies == []

    run(lambda sent: web.json_response({}), body, models_status=401)


def test_a_server_that_is_gone_is_no_failure_of_a_question(birds: Path) -> None:
    async def body(url: str, bodies: list[dict[str, Any]]) -> EndpointEngine:
        engine = EndpointEngine(ModelConfig(path="m", endpoint=url), EngineConfig(request_deadline_s=1))
        await engine.start()
        return engine

    async def both() -> None:
        async with served(lambda sent: web.json_response({})) as (url, bodies):
            engine = await body(url, bodies)
        effective, _ = resolve(SamplingConfig(), {})
        with pytest.raises(EngineDied, match="start the same command again"):
            await engine.answer(question(birds), [upright(picture(0))], effective, [None])
        await engine.aclose()

    asyncio.run(both())
