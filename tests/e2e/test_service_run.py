"""Training through a verifier service with a real judge on vLLM, held against the same judge asked in process, until a
worker dies. The algorithm is DAPO, whose filter and penalty look at what the service said."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_proxy import Fault, garbage, server_error
from judge_behind_faults import JUDGE, NAME, JudgeBehindFaults, judge_behind_faults
from laptop_run import LaptopRun
from long_run import LongRun, running
from service_process import Service
from stored_algorithms import assert_groups_without_a_signal_are_replaced, assert_long_answers_pay
from stored_rewards import assert_every_reward_is_the_judges

from speciarl.verdict import Pair

pytestmark = pytest.mark.timeout(1800)  # a run takes two minutes on an idle machine

OUR_ERROR = 2
IMAGES, ROLLOUTS = 8, 4
LONGEST = 11
"""Tokens. Answers of this policy have 8 to 10 and sometimes more: the last quarter of this limit begins after 8.25."""


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


@pytest.fixture
def run(laptop_data: Path, service: str, tmp_path: Path) -> Iterator[LongRun]:
    served = [
        "recipe/verifier=service", "speciarl.verifier.name=laptop", f"speciarl.verifier.service_url={service}",
        "trainer.total_training_steps=5",
        "recipe/algorithm=dapo_filtered", "recipe/reward=binary",  # few groups have a signal
        f"data.max_response_length={LONGEST}",
    ]  # fmt: skip
    with running(LongRun(tmp_path / "served", laptop_data, served)) as made:
        yield made


def test_the_service_judges_as_the_run_itself_would(judge: JudgeBehindFaults, run: LongRun) -> None:
    """Rewards and advantages are computed again by a verifier in this process; the faults are the service's alone.

    At last a worker dies, and with it the rollouts that veRL waits for: the run saves what it has and ends.
    """
    faults = Passing()
    judge.set_faults(faults)
    run.start()
    run.wait_for_step(2)
    for worker in run.processes("GroupAgentLoopWorker"):
        worker.kill()
    assert run.finish() == OUR_ERROR, run.log[-8000:]
    judge.set_faults()
    assert faults.requests > 4
    assert "an agent-loop worker died" in run.log
    measured = run.steps()
    assert len(measured) >= 2
    assert run.saved_step() == len(measured)
    for step in measured:
        stored = run.trajectories(step)
        assert len(stored) == IMAGES * ROLLOUTS
        assert_every_reward_is_the_judges(judge, stored, "binary")
        assert measured[step]["speciarl/unscorable_rate"] == 0
    stored_run = LaptopRun.ended(run.folder, OUR_ERROR, run.folder / "attempt-1.jsonl", run.folder / "attempt-1.log")
    assert sorted(stored_run.metrics) == sorted(measured)
    assert_groups_without_a_signal_are_replaced(stored_run)
    assert_long_answers_pay(stored_run, LONGEST)
