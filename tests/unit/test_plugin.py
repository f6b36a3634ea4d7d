"""What `import verl` sets up, and its failures. Fresh processes are in tests/integration/test_imports.py."""

import pytest

from speciarl import activation, plugin
from speciarl.cpu import stack
from speciarl.patches import verl as verl_patches
from speciarl.patches.board import PatchState


def test_all_patches_of_this_process_are_known() -> None:
    import verl  # noqa: F401

    states = plugin.ACTIVATION.board.states
    wanted = {"equal-length-mrope"}
    if stack.active():
        wanted |= {"single-gloo-backend", "unpinned-reference"}
    assert wanted <= set(states)
    assert PatchState.SKIPPED not in states.values()


def test_failure_is_told_and_raised(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> activation.Activation:
        raise RuntimeError("disc full")

    monkeypatch.setattr(plugin, "activate", fail)
    with pytest.raises(RuntimeError, match="disc full"):
        plugin._activate_loudly()
    message = capsys.readouterr().err
    assert "the veRL plug-in failed (RuntimeError: disc full)" in message
    assert "speciarl doctor" in message
    assert message.count("\n") == 1


def test_on_gpus_nothing_of_the_cpu_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    from speciarl.cpu import platform

    environ: dict[str, str] = {}
    registered: list[str] = []
    monkeypatch.setattr(stack, "active", lambda: False)
    monkeypatch.setattr(activation.os, "environ", environ)
    monkeypatch.setattr(platform, "register", lambda: registered.append("cpu"))
    monkeypatch.setattr(activation.psutil, "cpu_count", lambda logical: 8)
    state = activation.activate()
    assert not state.on_cpu
    assert environ == {}
    assert registered == []
    assert set(state.board.states) == {patch.name for patch in verl_patches.ALL}


def test_on_gpus_with_few_cores_transfer_queue_takes_as_many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    environ: dict[str, str] = {}
    monkeypatch.setattr(stack, "active", lambda: False)
    monkeypatch.setattr(activation.os, "environ", environ)
    monkeypatch.setattr(activation.psutil, "cpu_count", lambda logical: 4)
    assert activation.activate().environment == environ == {"TQ_NUM_THREADS": "4"}
    environ["TQ_NUM_THREADS"] = "6"
    assert activation.activate().environment == {}
    assert environ == {"TQ_NUM_THREADS": "6"}
