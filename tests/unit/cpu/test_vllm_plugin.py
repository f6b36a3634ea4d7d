"""vLLM's plug-in does something on CPUs only. What it does is in tests/integration/test_vllm_cpu_plugin.py."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

from speciarl.cpu import vllm_plugin
from speciarl.patches.board import Patch, PatchBoard


@pytest.mark.parametrize(("on_cpu", "expected"), [(True, ["vllm-keeps-linear-weights"]), (False, [])])
def test_patches_are_for_the_cpu_backend(monkeypatch: pytest.MonkeyPatch, on_cpu: bool, expected: list[str]) -> None:
    installed: list[str] = []

    def install(self: PatchBoard, patch: Patch) -> None:
        installed.append(patch.name)

    fake = ModuleType("vllm.platforms")
    fake.current_platform = SimpleNamespace(is_cpu=lambda: on_cpu)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", ModuleType("vllm"))
    monkeypatch.setitem(sys.modules, "vllm.platforms", fake)
    monkeypatch.setattr(PatchBoard, "install", install)
    vllm_plugin.register()
    assert installed == expected
