"""veRL finds the platform by itself, and with it everything that a run on the CPU needs."""

import pytest
from verl.plugin.platform import PlatformRegistry, get_platform
from verl.utils.device import get_device_id, get_device_name, get_nccl_backend, get_resource_name, get_torch_device

from speciarl.cpu import environment, stack
from speciarl.cpu.platform import PlatformCPU

pytestmark = pytest.mark.skipif(not stack.active(), reason="the CPU platform is registered in CPU installations only")


def test_detection_picks_the_cpu_without_any_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    from verl.plugin.platform import platform_manager

    monkeypatch.delenv("VERL_PLATFORM", raising=False)
    monkeypatch.setattr(platform_manager, "_current_platform", None)
    assert isinstance(get_platform(), PlatformCPU)


def test_an_accelerator_goes_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from verl.plugin.platform import platform_manager

    monkeypatch.delenv("VERL_PLATFORM", raising=False)
    monkeypatch.setattr(platform_manager, "_current_platform", None)
    nvidia = PlatformRegistry.get("nvidia")
    monkeypatch.setattr(nvidia, "is_platform_available", lambda self, use_smi_check=False: True)
    assert get_platform().device_name == "cuda"


def test_device_helpers_of_verl() -> None:
    assert get_device_name() == "cpu"
    assert f"{get_device_name()}:{get_device_id()}" == "cpu:0"
    assert get_nccl_backend() == "gloo"
    assert get_resource_name() == "GPU"
    assert get_torch_device().is_available()


def test_rollout_servers_get_the_environment() -> None:
    platform = PlatformCPU()
    assert platform.rollout_env_vars() == environment.variables()
    assert platform.is_ipc_supported() is False


@pytest.mark.parametrize("strategy", ["fsdp", "fsdp2"])
def test_fsdp_engine_is_found(strategy: str) -> None:
    from verl.workers.engine import EngineRegistry

    engine = EngineRegistry.get_engine_cls("language_model", strategy)
    assert "fsdp" in engine.__module__
