"""The deadline of the weight transfer. The managers here are fakes; tests/integration has veRL's own."""

import threading
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import RayTaskError

from speciarl.errors import WeightTransferFailed, WeightTransferStuck
from speciarl.training.trainer.weight_deadline import set_deadline


def fake_manager(update_weights: Any, deadline_s: float = 60.0) -> Any:
    manager = SimpleNamespace(update_weights=update_weights)
    set_deadline(manager, deadline_s)
    return manager


def test_a_transfer_in_time_gets_its_arguments_and_returns_its_metrics() -> None:
    manager = fake_manager(lambda step, mode=None: {"step": step, "mode": mode})
    assert manager.update_weights(7, mode="naive") == {"step": 7, "mode": "naive"}


@pytest.mark.parametrize("error", [RuntimeError("the server died"), TimeoutError("the transfer's own")])
def test_its_errors_stay_what_they_are(error: Exception) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(type(error), match=str(error)):
        fake_manager(fail).update_weights()


def test_one_that_hangs_ends_with_what_to_do() -> None:
    released = threading.Event()
    manager = fake_manager(released.wait, deadline_s=0.05)
    with pytest.raises(WeightTransferStuck, match=r"within 0\.05 s \(speciarl\.training\.weights_deadline_s\)"):
        manager.update_weights()
    released.set()


def test_a_failed_worker_ends_it_with_the_first_cause() -> None:
    def fail() -> None:
        error: Any = ValueError("no such\n weight")
        for process in ("server", "trainer"):
            error = RayTaskError(process, "Traceback …", error, proctitle=process, pid=1, ip="").as_instanceof_cause()
        raise error

    with pytest.raises(
        WeightTransferFailed, match=r"rollout servers: ValueError: no such weight\. Start the same"
    ) as it:
        fake_manager(fail).update_weights()
    assert isinstance(it.value.__cause__, RayTaskError)


def test_a_timeout_of_a_worker_is_not_the_deadlines() -> None:
    def fail() -> None:
        raise RayTaskError("f", "Traceback …", TimeoutError("gloo"), proctitle="p", pid=1, ip="").as_instanceof_cause()

    with pytest.raises(WeightTransferFailed, match="TimeoutError: gloo"):
        fake_manager(fail).update_weights()
