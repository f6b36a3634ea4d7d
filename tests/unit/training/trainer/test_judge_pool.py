"""When the judges of a run start: beside veRL's workers, or before them where they share their GPUs."""

import threading

import pytest
from composed_run import composed

from speciarl.config import SpeciaRLConfig, load
from speciarl.errors import VerifierStartError
from speciarl.training.trainer import judge_pool
from speciarl.training.trainer.judge_pool import ManagedJudges

SOON_S = 10.0


class SlowPool:
    """Stands for a pool whose replicas are healthy when `loaded` is set."""

    loaded = threading.Event()
    error: VerifierStartError | None = None

    def __init__(self, *settings: object) -> None:
        pass

    def start(self) -> list[str]:
        assert self.loaded.wait(SOON_S)
        if self.error is not None:
            raise self.error
        return ["http://judge"]


@pytest.fixture(autouse=True)
def pool(monkeypatch: pytest.MonkeyPatch) -> type[SlowPool]:
    monkeypatch.setattr(judge_pool, "JudgePool", SlowPool)
    monkeypatch.setattr(SlowPool, "loaded", threading.Event())
    return SlowPool


def settings(judge: str) -> SpeciaRLConfig:
    return load(composed("+recipe=speciarl", f"recipe/verifier={judge}"))


@pytest.mark.parametrize(("judge", "device"), [("qwen3_30b_a3b", "cuda"), ("laptop", "cpu")])
def test_judges_apart_load_while_the_trainer_starts(judge: str, device: str, pool: type[SlowPool]) -> None:
    managed = ManagedJudges(settings(judge), device)
    managed.launch()
    pool.loaded.set()  # would never be reached if launching waited
    assert managed.wait() == ["http://judge"]


@pytest.mark.parametrize("judge", ["qwen3_4b", "laptop"])
def test_the_trainer_waits_for_judges_on_its_gpu(judge: str, pool: type[SlowPool]) -> None:
    managed, launched = ManagedJudges(settings(judge), "cuda"), threading.Event()
    thread = threading.Thread(target=lambda: (managed.launch(), launched.set()))
    thread.start()
    assert not launched.wait(0.2)
    pool.loaded.set()
    assert launched.wait(SOON_S)
    thread.join()
    assert managed.wait() == ["http://judge"]


def test_a_judge_that_does_not_start_ends_the_run_before_the_trainer_is_built(
    monkeypatch: pytest.MonkeyPatch, pool: type[SlowPool]
) -> None:
    monkeypatch.setattr(pool, "error", VerifierStartError("judge 'qwen3_4b': no room"))
    pool.loaded.set()
    with pytest.raises(VerifierStartError, match="no room"):
        ManagedJudges(settings("qwen3_4b"), "cuda").launch()


def test_without_a_pool_there_is_nothing_to_wait_for() -> None:
    managed = ManagedJudges(settings("taxonomy"), "cuda")
    managed.launch()
    assert managed.wait() == []
