"""The torchvision shim acts beside a CPU build of torch only. The real import: tests/integration/test_imports.py."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

SHIM = Path(__file__).resolve().parents[3] / "packaging" / "torchvision_cpu_shim" / "torchvision_cpu_shim.py"


@pytest.fixture
def shim(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))  # the module adds a finder when it is imported
    spec = importlib.util.spec_from_file_location("torchvision_cpu_shim_under_test", SHIM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def defined(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []
    monkeypatch.setattr(torch.library, "define", lambda name, schema: names.append(name))
    return names


@pytest.mark.parametrize(
    ("has_operators", "cuda", "hip", "acts"),
    [
        pytest.param(False, None, None, True, id="CPU torch, operators missing"),
        pytest.param(True, None, None, False, id="CPU torch, CPU torchvision"),
        pytest.param(False, "13.0", None, False, id="CUDA torch: a real fault, left to be seen"),
        pytest.param(False, None, "7.0", False, id="ROCm torch"),
    ],
)
def test_acts_only_where_it_is_needed(
    shim: ModuleType,
    defined: list[str],
    monkeypatch: pytest.MonkeyPatch,
    has_operators: bool,
    cuda: str | None,
    hip: str | None,
    acts: bool,
) -> None:
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.version, "hip", hip)
    extension = SimpleNamespace(_has_ops=lambda: has_operators)
    assert shim.declare_missing_operators(extension) is acts
    assert defined == (["torchvision::nms", "torchvision::qnms"] if acts else [])


def test_finder_leaves_other_modules_alone(shim: ModuleType) -> None:
    assert shim.Finder().find_spec("json") is None
