"""The settings in examples/paper_clients answer to every name that clients of the paper's release send."""

import itertools
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web

from speciarl.category import LABELS
from speciarl.verifier_server.judge.prompt import load_prompt
from speciarl.verifier_server.service.compatible.classify import find_judge
from speciarl.verifier_server.service.config import ServiceConfig
from speciarl.verifier_server.service.config_source import load_settings

pytestmark = pytest.mark.anyio

Make = Callable[..., Any]
EXAMPLES = Path(__file__).parents[4] / "examples" / "paper_clients"
STANDARD = "/api/v1/classify/standard"
BINARY = "/api/v1/classify/binary"

QWEN = "Qwen3-30B-A3B-Instruct-2507-FP8"
LLAMA = "Meta-Llama-3-70B-Instruct"
HOWS = ("nothinking_single", "nothinking_json", "thinking_single", "thinking_json")
MODELS = {
    "training": [f"{QWEN}_{how}" for how in HOWS[:2]] + [f"Qwen_{QWEN}_{how}" for how in HOWS],
    "evaluation": [f"{LLAMA}_{how}" for how in HOWS],
}
PROMPTS = {
    "ver_base_json": "many",
    "ver_base_soft_json": "soft",
    "ver_base_single": "base",
    "ver_base_soft_single": "soft",
    "ver_decision_tree_single": "decision_tree",
    "ver_normalize_strict_single": "strict",
    "ver_checklist_single": "checklist",
}
"""Prompts of the release for six labels, and ours."""
BINARY_PROMPTS = ("ver_base_json_binary", "ver_base_single_binary")


def body(model: str | None, prompt: str | None, predictions: list[str], whole: bool = True) -> dict[str, Any]:
    """A request as the evaluation code sends it, or, not `whole`, as the reward functions do."""
    context = {"ground_truth": "dog", "metadata": {"source_dataset": "pets", "source_index": 7}}
    info = [{"sample_id": "7f", "prediction_index": at, "data_context": context} for at in range(len(predictions))]
    return {
        "ground_truths": ["dog"] * len(predictions),
        "predictions": predictions,
        "model": model,
        "verifier_prompt": prompt,
        "run_name": "9f" * 32 if whole else None,
        "extra_info": info if whole else None,
    }


def obedient(_: int) -> Any:
    """A plan for FakeJudge that grades several pairs of one request too, each by its own answer."""

    async def reply(judge: Any, __: web.Request) -> web.StreamResponse:
        asked = judge.requests[-1]
        pairs = json.loads(asked["messages"][-1]["content"])
        if isinstance(pairs, dict):
            return web.json_response(judge.completion(asked))
        pattern = asked["structured_outputs"]["regex"].replace("\\", "")
        verdicts = [{"id": pair["id"], "category": judge.answers.get(pair["prediction"], "wrong")} for pair in pairs]
        for verdict in verdicts:  # the probe allows a single label at a time
            if f"({verdict['category']})" not in pattern and "|" not in pattern:
                verdict["category"] = pattern.partition('"category": "(')[2].partition(")")[0]
        message = {"role": "assistant", "content": json.dumps({"verdicts": verdicts})}
        return web.json_response({"choices": [{"message": message, "finish_reason": "stop"}]})

    return reply


def load(name: str, url: str) -> ServiceConfig:
    """The settings as a user would load them, with their judges at the fake server."""
    judges = load_settings(EXAMPLES / f"{name}.yaml", [], []).judges
    changes = ["judges.base.model=fake", f"judges.base.endpoints=[{url}]"]
    return load_settings(
        EXAMPLES / f"{name}.yaml", [], changes + [f"judges.{judge}.probe=false" for judge in judges], "none"
    )


@pytest.fixture(params=MODELS)
async def service(
    request: Any, fake_judge: Make, running: Make
) -> AsyncIterator[tuple[list[str], httpx.AsyncClient, Any]]:
    """The model names of one kind of client, the service for it, and the judges' server."""
    judge = fake_judge()
    judge.max_model_len = 100_000
    judge.plan = obedient
    async with judge.running(), running(load(request.param, judge.url)) as client:
        assert (await client.get("/ready")).status_code == 200
        yield MODELS[request.param], client, judge


async def test_every_pair_of_names_reaches_the_judge_it_means(
    service: tuple[list[str], httpx.AsyncClient, Any],
) -> None:
    models, client, judge = service
    names = [(STANDARD, *both) for both in itertools.product([None, *models], PROMPTS)]
    names += [(BINARY, *both) for both in itertools.product([None, *models], BINARY_PROMPTS)]
    for number, (route, model, prompt) in enumerate(names):
        said = {f"{label} {number}": label for label in LABELS}  # new texts, or memory would answer
        judge.answers = said
        judge.arm()
        reply = await client.post(route, json=body(model, prompt, list(said)))
        assert reply.status_code == 200, (model, prompt, reply.text)
        broad = [label in ("wrong", "abstain") for label in LABELS]
        words = ["wrong" if one else "correct" for one in broad] if route == BINARY else list(LABELS)
        assert reply.json() == {"classifications": words}
        used = load_prompt(PROMPTS.get(prompt, "base")).system
        assert {request["messages"][0]["content"] for request in judge.requests[-judge.chats :]} == {used}
        assert judge.chats == (1 if prompt == "ver_base_json" else len(LABELS))


async def test_what_clients_leave_out_is_made_up_for(service: tuple[list[str], httpx.AsyncClient, Any]) -> None:
    models, client, _ = service
    for route, word in ((STANDARD, "specific"), (BINARY, "correct")):
        for model in (None, models[0]):
            reply = await client.post(route, json=body(model, None, ["dog"], whole=False))
            assert reply.json() == {"classifications": [word]}


async def test_names_of_others_are_refused_with_a_list(service: tuple[list[str], httpx.AsyncClient, Any]) -> None:
    models, client, _ = service
    foreign = next(other[0] for other in MODELS.values() if other is not models)
    for route, model, prompt in (
        (STANDARD, foreign, "ver_base_single"),
        (STANDARD, models[0], "ver_base_single_binary"),
        (BINARY, models[0], "ver_base_single"),
    ):
        reply = await client.post(route, json=body(model, prompt, ["dog"]))
        assert reply.status_code == 404
        error = reply.json()["error"]
        assert all(name in error["message"] for name in models)
        assert set(BINARY_PROMPTS if route == BINARY else PROMPTS) <= {
            one["verifier_prompt"] for one in error["details"]
        }


@pytest.mark.parametrize(
    ("name", "prompt", "model", "thinks", "pairs"),
    [
        (None, None, "Qwen/Qwen3-30B-A3B-FP8", False, 1),
        ("Qwen_Qwen3-30B-A3B-FP8_nothinking_single", "ver_base_single", "Qwen/Qwen3-30B-A3B-FP8", False, 1),
        ("Qwen_Qwen3-30B-A3B-FP8_nothinking_json", "ver_base_json", "Qwen/Qwen3-30B-A3B-FP8", False, 8),
        ("Qwen_Qwen3-30B-A3B-FP8_thinking_single", "ver_base_single", "Qwen/Qwen3-30B-A3B-FP8", True, 1),
        ("Qwen_Qwen3-30B-A3B-FP8_thinking_json", None, "Qwen/Qwen3-30B-A3B-FP8", True, 8),
        (
            "Llama-4-Maverick-17B-128E-Instruct-FP8_nothinking_single", None,
            "meta-llama/Llama-4-Maverick-17B-128E-Instruct-FP8", False, 1,
        ),
        ("Meta-Llama-3-8B-Instruct_thinking_single", None, "meta-llama/Meta-Llama-3-8B-Instruct", False, 1),
        ("Meta-Llama-3-8B-Instruct_nothinking_json", "ver_base_json", "meta-llama/Meta-Llama-3-8B-Instruct", False, 8),
    ],
)  # fmt: skip
def test_further_names_mean_their_models(
    name: str | None, prompt: str | None, model: str, thinks: bool, pairs: int
) -> None:
    settings = load_settings(EXAMPLES / "further.yaml", [], [])
    judge = settings.judges[find_judge(settings, name, prompt, binary=False)]
    assert (judge.model, judge.thinking, judge.pairs_per_request) == (model, thinks, pairs)
    assert judge.prompt == ("many" if pairs > 1 else "base")
