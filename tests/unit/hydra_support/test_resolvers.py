"""Resolvers of the recipes."""

from pathlib import Path

import pytest
import torch
import verl  # noqa: F401  (loads the plug-in)
from omegaconf import OmegaConf
from omegaconf.errors import InterpolationResolutionError

from speciarl.cpu import stack
from speciarl.hydra_support import resolvers


def resolve(expression: str) -> object:
    return OmegaConf.create({"key": expression}).key


@pytest.mark.parametrize(
    ("expression", "on_cpu", "elsewhere"),
    [
        ("${speciarl.on_cpu:1,null}", 1, None),
        ("${speciarl.on_cpu:null,0.1}", None, 0.1),
        ("${speciarl.on_cpu:fsdp2,fsdp}", "fsdp2", "fsdp"),
        ("${speciarl.on_cpu:true,false}", True, False),
        ("${speciarl.on_cpu:'a, b',[1,2]}", "a, b", [1, 2]),
    ],
)
def test_on_cpu(monkeypatch: pytest.MonkeyPatch, expression: str, on_cpu: object, elsewhere: object) -> None:
    monkeypatch.setattr(stack, "active", lambda: True)
    assert resolve(expression) == on_cpu
    monkeypatch.setattr(stack, "active", lambda: False)
    assert resolve(expression) == elsewhere


def test_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack, "active", lambda: True)
    assert resolve("${speciarl.device:}") == "cpu"
    monkeypatch.setattr(stack, "active", lambda: False)
    assert resolve("${speciarl.device:}") == "cuda"
    monkeypatch.setattr(torch, "npu", object(), raising=False)
    assert resolve("${speciarl.device:}") == "npu"


def test_sum() -> None:
    assert OmegaConf.create({"prompt": 2048, "answer": 512, "all": "${speciarl.sum:${prompt},${answer}}"}).all == 2560


def test_package_path() -> None:
    path = resolve("${speciarl.package_path:cpu/stack.py}")
    assert isinstance(path, str)
    assert Path(path).is_absolute()
    assert Path(path).is_file()
    with pytest.raises(InterpolationResolutionError, match="the speciarl package has no 'absent/model'"):
        resolve("${speciarl.package_path:absent/model}")


def test_registering_again_changes_nothing() -> None:
    resolvers.register()
    assert OmegaConf.has_resolver("speciarl.on_cpu")
