"""The torchvision shim: needed beside a CPU build of torch, and inert beside any other."""

import importlib.util
import subprocess
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


def import_torchvision(prelude: str) -> subprocess.CompletedProcess[str]:
    code = f"import sys\n{prelude}\nimport torchvision.transforms.v2\nprint(torchvision.__version__)"
    return subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=120)


def test_real_torchvision_is_imported_with_it_and_if_built_for_cuda_not_without() -> None:
    helped = import_torchvision("")
    assert helped.returncode == 0, helped.stderr
    needed = torch.version.cuda is None and "+cu" in helped.stdout
    without = "sys.meta_path = [one for one in sys.meta_path if type(one).__module__ != 'torchvision_cpu_shim']"
    alone = import_torchvision(without)
    assert ("operator torchvision::nms does not exist" in alone.stderr) is needed
