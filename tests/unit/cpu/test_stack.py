"""When the CPU platform is active: only in an installation for CPUs, and only without an accelerator."""

import importlib.metadata

import pytest
import torch

from speciarl.cpu import stack


class FakeInstallation:
    """Sets what the stack looks at: torch's build, the name of vLLM's distribution, and visible devices."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        monkeypatch.delenv("VERL_PLATFORM", raising=False)

    def set(self, cuda: str | None, vllm: str | None, visible: bool, hip: str | None = None) -> None:
        def version(name: str) -> str:
            if name != "vllm" or vllm is None:
                raise importlib.metadata.PackageNotFoundError(name)
            return vllm

        self._monkeypatch.setattr(torch.version, "cuda", cuda)
        self._monkeypatch.setattr(torch.version, "hip", hip)
        self._monkeypatch.setattr(importlib.metadata, "version", version)
        self._monkeypatch.setattr(torch.cuda, "is_available", lambda: visible)


@pytest.fixture
def installation(monkeypatch: pytest.MonkeyPatch) -> FakeInstallation:
    return FakeInstallation(monkeypatch)


@pytest.mark.parametrize(
    ("cuda", "hip", "vllm", "visible", "expected"),
    [
        pytest.param(None, None, "0.24.0+cpu", False, True, id="CPU stack"),
        pytest.param(None, None, None, False, True, id="CPU torch alone"),
        pytest.param("13.0", None, "0.24.0+cpu", False, True, id="CPU vLLM beside CUDA torch, no GPU"),
        pytest.param("13.0", None, "0.24.0+cpu", True, False, id="CPU vLLM on a GPU machine"),
        pytest.param("13.0", None, "0.24.0", True, False, id="GPU stack"),
        pytest.param("13.0", None, "0.24.0", False, False, id="Ray actor or login node of a GPU run"),
        pytest.param(None, "7.0", "0.24.0", False, False, id="ROCm build, no device visible"),
        pytest.param("13.0", None, None, False, False, id="CUDA torch alone"),
    ],
)
def test_active(
    installation: FakeInstallation, cuda: str | None, hip: str | None, vllm: str | None, visible: bool, expected: bool
) -> None:
    installation.set(cuda, vllm, visible, hip)
    assert stack.active() is expected


def test_user_may_name_another_platform(installation: FakeInstallation, monkeypatch: pytest.MonkeyPatch) -> None:
    installation.set(None, "0.24.0+cpu", False)
    monkeypatch.setenv("VERL_PLATFORM", "huawei")
    assert not stack.active()
    monkeypatch.setenv("VERL_PLATFORM", "cpu")
    assert stack.active()


def test_torch_for_npus_is_no_cpu_stack(installation: FakeInstallation, monkeypatch: pytest.MonkeyPatch) -> None:
    installation.set(None, None, False)
    monkeypatch.setattr(torch, "npu", object(), raising=False)
    assert not stack.active()
