"""Training through a verifier service with a real judge on vLLM, against training with the same judge in process."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fault_proxy import Fault, garbage, server_error
from judge_behind_faults import JUDGE, NAME, JudgeBehindFaults, judge_behind_faults
from laptop_run import IMAGES, ROLLOUTS, STEPS, LaptopRun, train
from service_process import Service
from stored_rewards import assert_every_reward_is_the_judges

from speciarl.verdict import Pair

pytestmark = pytest.mark.timeout(1800)  # several runs, a minute each on an idle machine

OWN = ("verdict_source", "margin", "step")
"""Where the verdict came from; the judge's probabilities depend, in their last digits, on what else is in its batch."""


class Passing:
    """Every fourth request meets a fault, and the next one for the same pair none."""

    def __init__(self) -> None:
        self.requests = 0

    def __call__(self, pair: Pair) -> Fault | None:
        self.requests += 1
        return (garbage, server_error)[self.requests // 4 % 2] if self.requests % 4 == 0 else None


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JudgeBehindFaults]:
    with judge_behind_faults(tmp_path_factory.mktemp("judge")) as started:
        yield started


@pytest.fixture
def service(judge: JudgeBehindFaults, tmp_path: Path) -> Iterator[str]:
    """Its URL."""
    laptop = {
        "kind": "vllm", "model": JUDGE, "served_model_name": NAME, "prompt": "compact", "max_string_chars": 120,
        "endpoints": [judge.url], "retries": 4, "backoff_s": 0.05,
    }  # fmt: skip
    settings = tmp_path / "service.yaml"
    settings.write_text(json.dumps({"port": 0, "judges": {"laptop": laptop}}))  # JSON is YAML
    process = Service(tmp_path, "--config", str(settings), "--store", str(tmp_path / "verdicts.sqlite"))
    try:
        yield process.wait_ready()
    finally:
        process.stop()


def learnt_from(run: LaptopRun) -> list[dict[str, Any]]:
    rows = [row for step in range(1, STEPS + 1) for row in run.trajectories(step)]
    return sorted(
        ({name: value for name, value in row.items() if name not in OWN} for row in rows), key=lambda row: row["uid"]
    )


def test_the_service_judges_as_the_run_itself_would(
    judge: JudgeBehindFaults, service: str, laptop_data: Path, tmp_path: Path
) -> None:
    in_process = train(tmp_path / "in_process", laptop_data, *judge.overrides)
    faults = Passing()
    judge.set_faults(faults)
    served = train(
        tmp_path / "served", laptop_data, "recipe/verifier=service", "speciarl.verifier.name=laptop",
        f"speciarl.verifier.service_url={service}",
    )  # fmt: skip
    judge.set_faults()
    assert faults.requests > 4
    assert learnt_from(served) == learnt_from(in_process)
    assert len(learnt_from(served)) == IMAGES * ROLLOUTS * STEPS
    for step in range(1, STEPS + 1):
        assert_every_reward_is_the_judges(judge, served.trajectories(step))
