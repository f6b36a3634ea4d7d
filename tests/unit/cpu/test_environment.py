"""Third parties' switches are set in one place, and never over a user's own choice."""

import inspect
import logging

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transfer_queue import client
from transfer_queue.storage import simple_storage
from transfer_queue.utils import common

from speciarl.cpu import environment

NAMES = sorted(environment.variables())


@given(st.dictionaries(st.sampled_from([*NAMES, "PATH", "HOME"]), st.text(max_size=5)))
def test_apply_adds_what_is_missing_and_keeps_what_is_set(present: dict[str, str]) -> None:
    environ = dict(present)
    added = environment.apply(environ)
    assert environ == {**environment.variables(), **present}
    assert added == {name: value for name, value in environment.variables().items() if name not in present}
    assert environment.apply(environ) == {}


def test_variables_are_a_copy() -> None:
    environment.variables()["OMP_NUM_THREADS"] = "99"
    assert environment.variables()["OMP_NUM_THREADS"] == "1"


def test_models_may_still_be_downloaded() -> None:
    assert not [name for name in NAMES if "OFFLINE" in name]


def test_transfer_queue_does_not_warn_at_every_call(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for module in (client, simple_storage):
        assert 'TQ_NUM_THREADS = int(os.environ.get("TQ_NUM_THREADS", 8))' in inspect.getsource(module)
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: 1)
    monkeypatch.setattr(common.logger, "level", logging.WARNING)

    def warnings_with(threads: int) -> int:
        caplog.clear()
        for _ in range(3):
            with common.limit_pytorch_auto_parallel_threads(threads):
                pass
        return len(caplog.records)

    assert warnings_with(8) == 3
    assert warnings_with(int(environment.variables()["TQ_NUM_THREADS"])) == 0
