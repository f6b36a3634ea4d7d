"""What `import verl` sets up, seen from outside in fresh processes, and its failures."""

import subprocess
import sys

import pytest

from speciarl import activation, plugin
from speciarl.cpu import stack
from speciarl.hydra_support import resolvers
from speciarl.patches import verl as verl_patches
from speciarl.patches.board import PatchState


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter, away from the checkout, with a bare environment."""
    bare = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd="/", env={**bare, **environment}
    )


def test_import_verl_is_enough_and_stays_lean() -> None:
    result = run(
        "import os, sys, verl\n"
        "from speciarl.plugin import ACTIVATION\n"
        f"assert ACTIVATION.on_cpu is {stack.active()}\n"
        "assert ACTIVATION.environment.items() <= os.environ.items()\n"
        f"assert os.environ.get('VERL_ENGINE_DEVICE') == {'cuda' if stack.active() else None!r}\n"
        "assert os.environ['OMP_NUM_THREADS'] == '7'  # a user's choice\n"
        "assert 'VERL_PLATFORM' not in os.environ\n"
        f"from verl.utils.device import get_device_name; assert get_device_name() == {resolvers.device()!r}\n"
        "heavy = ['hydra', 'vllm', 'verl.trainer.ppo.v1', 'speciarl.training', 'speciarl.verifier_server']\n"
        "assert not [name for name in heavy if name in sys.modules], sorted(sys.modules)\n"
        "import verl.trainer.ppo.v1\n"
        "assert 'speciarl.training.trainer.trainer' in sys.modules  # registered, now that somebody trains\n"
        "print('fine')",
        OMP_NUM_THREADS="7",
    )
    assert result.stdout == "fine\n", result.stderr


def test_without_plugins_verl_is_as_shipped() -> None:
    result = run(
        "import sys, verl\nassert not [name for name in sys.modules if name.startswith('speciarl')]\nprint('fine')",
        VERL_USE_EXTERNAL_PLUGINS="none",
    )
    assert result.stdout == "fine\n", result.stderr


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
    state = activation.activate()
    assert not state.on_cpu
    assert environ == {}
    assert registered == []
    assert set(state.board.states) == {patch.name for patch in verl_patches.ALL}
