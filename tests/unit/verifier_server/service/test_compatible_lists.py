"""What the paper's clients may ask besides judging: names, the form of a request, state and pairs of a run."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.anyio

Make = Callable[..., Any]
STANDARD = "/api/v1/classify/standard"
ALIASES = [
    {"model": ["Qwen_single", None], "prompt": [None, "ver_base_single"], "judge": "gold"},
    {"model": "Qwen_single", "prompt": "ver_soft_single", "judge": "gold"},
    {"model": "Llama_single", "prompt": "*", "judge": "gold"},
]


def body(*pairs: tuple[str, str], run: str | None = "night", info: Any = None) -> dict[str, Any]:
    truths, predictions = ([pair[side] for pair in pairs] for side in (0, 1))
    return {"ground_truths": truths, "predictions": predictions, "run_name": run, "extra_info": info}


async def test_names_that_clients_may_send(make_settings: Make, running: Make) -> None:
    async with running(make_settings(aliases=ALIASES)) as client:
        models = (await client.get("/api/v1/models")).json()
        assert models == {"available_models": ["gold", "Qwen_single", "Llama_single"], "default_model": "gold"}
        prompts = (await client.get("/api/v1/prompts")).json()
        assert prompts == {"available_prompts": ["ver_base_single", "ver_soft_single"], "default_prompt": None}


async def test_every_example_of_the_schema_is_a_request_that_works(make_settings: Make, running: Make) -> None:
    async with running(make_settings()) as client:
        schema = (await client.get("/api/v1/schema")).json()
        assert set(schema["required_fields"]) == {"ground_truths", "predictions"}
        assert {"model", "verifier_prompt", "run_name", "extra_info"} == set(schema["optional_fields"])
        for example in schema["examples"].values():
            method, path = example["endpoint"].split()
            assert f"{method} {path}" in schema["endpoints"]
            reply = await client.post(path, json=example["body"])
            assert reply.status_code in (200, 422)  # 422: this judge's hierarchy knows no warblers
            assert "invalid_request" not in reply.text


async def test_the_state_and_the_pairs_of_a_run(make_settings: Make, running: Make, tmp_path: Path) -> None:
    log = {"directory": str(tmp_path / "log"), "flush_s": 60}
    async with running(make_settings(verdict_log=log)) as client:
        idle = (await client.get("/api/v1/runs/my%20night/status")).json()
        nothing = {"queue_pending_count": 0, "total_processed": 0, "last_activity": None}
        assert idle == {"run_name": "my-night", "status": "idle"} | nothing
        pairs = [("samoyed", "dog"), ("dog", "cat"), ("samoyed", "dog")]
        info = [{"index": 1}, None, {"index": 3}]
        assert (await client.post(STANDARD, json=body(*pairs, run="my night", info=info))).status_code == 200
        assert (await client.post(STANDARD, json=body(("dog", "dog"), run="other"))).status_code == 200
        assert (await client.post(STANDARD, json=body(("violin", "dog"), run="my night"))).status_code == 422
        status = (await client.get("/api/v1/runs/my%20night/status")).json()
        assert (status["status"], status["queue_pending_count"], status["total_processed"]) == ("processing", 4, 4)
        assert datetime.fromisoformat(status["last_activity"])

        page = (await client.get("/api/v1/runs/my%20night/results?include_stats=true")).json()
        assert (page["total_count"], page["returned_count"], page["has_more"]) == (3, 3, False)
        assert [(one["prediction"], one["classification_result"], one["count"]) for one in page["results"]] == [
            ("dog", "error", 1), ("dog", "less specific", 2), ("cat", "wrong", 1)
        ]  # fmt: skip
        assert [each["extra_info"] for each in page["results"][1]["occurrences"]] == [{"index": 1}, {"index": 3}]
        assert page["stats"]["classification_distribution"] == {"less specific": 2, "wrong": 1, "error": 1}
        assert (page["stats"]["total_classifications"], page["stats"]["success_rate"]) == (4, 75.0)
        assert page["stats"]["models_used"] == ["gold"]

        second = (await client.get("/api/v1/runs/my%20night/results?limit=1&offset=1&fields=basic")).json()
        assert (second["returned_count"], second["offset"], second["has_more"], second["stats"]) == (1, 1, True, None)
        (only,) = second["results"]
        assert only["_id"] == page["results"][1]["_id"]
        assert "occurrences" not in only
        assert "prompt" not in only
        few = (await client.get("/api/v1/runs/my%20night/results?fields=prediction,count")).json()["results"]
        assert [set(one) for one in few] == [{"_id", "prediction", "count"}] * 3


async def test_a_run_is_completed_when_its_rows_are_written(make_settings: Make, running: Make, tmp_path: Path) -> None:
    settings = make_settings(verdict_log={"directory": str(tmp_path / "log"), "flush_s": 60})
    async with running(settings) as client:
        await client.post(STANDARD, json=body(("dog", "dog")))
    async with running(settings) as client:
        assert (await client.get("/api/v1/runs/night/status")).json()["status"] == "completed"
        assert (await client.get("/api/v1/runs/night/results")).json()["total_count"] == 1


async def test_what_cannot_be_answered(make_settings: Make, running: Make, tmp_path: Path) -> None:
    async with running(make_settings()) as client:
        await client.post(STANDARD, json=body(("dog", "dog")))
        assert (await client.get("/api/v1/runs/night/results")).json()["error"]["code"] == "no_log"
        assert (await client.get("/api/v1/runs/night/status")).json()["status"] == "completed"
        assert (await client.get("/api/v1/runs/none/results")).json()["error"]["code"] == "unknown_run"
        wrong = await client.get("/api/v1/runs/night/results?fields=verdict")
        assert wrong.status_code == 422
        assert "there is no 'verdict'; known: basic, ground_truth" in wrong.json()["error"]["message"]
        for query in ("limit=0", "limit=50001", "offset=-1", "include_stats=perhaps"):
            assert (await client.get(f"/api/v1/runs/night/results?{query}")).status_code == 422
