"""The board of patches: exact versions, at the right moment, once."""

import importlib
import logging
import sys
from pathlib import Path
from typing import Any

import pytest

from speciarl.patches.board import Patch, PatchBoard, PatchState, installed_version


def make(module: str, version: str | None = None, applied: list[Any] | None = None) -> Patch:
    return Patch(
        name="example",
        distribution="packaging",
        version=version or str(installed_version("packaging")),
        module=module,
        reason="It breaks.",
        upstream="https://example.org/1",
        apply=(applied if applied is not None else []).append,
    )


def test_imported_module_is_patched_at_once() -> None:
    board, applied = PatchBoard(), []
    board.install(make("json", applied=applied))
    assert applied == [sys.modules["json"]]
    assert board.states == {"example": PatchState.APPLIED}


def test_other_module_is_patched_when_it_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "patched_later.py").write_text("value = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    board, applied = PatchBoard(), []
    board.install(make("patched_later", applied=applied))
    assert board.states == {"example": PatchState.WAITING}
    assert "patched_later" not in sys.modules
    module = importlib.import_module("patched_later")
    assert applied == [module]
    assert board.states == {"example": PatchState.APPLIED}


def test_another_version_is_left_alone_and_said(caplog: pytest.LogCaptureFixture) -> None:
    board, applied = PatchBoard(), []
    with caplog.at_level(logging.WARNING):
        board.install(make("json", version="0.0.1", applied=applied))
    assert applied == []
    assert board.states == {"example": PatchState.SKIPPED}
    assert "patch example is for packaging 0.0.1, but" in caplog.text
    assert "It breaks. See https://example.org/1" in caplog.text


def test_installing_twice_applies_once() -> None:
    board, applied = PatchBoard(), []
    for _ in range(2):
        board.install(make("json", applied=applied))
    assert len(applied) == 1


def test_absent_distribution_has_no_version() -> None:
    assert installed_version("no-such-distribution") is None
    assert "+" not in str(installed_version("torch"))
