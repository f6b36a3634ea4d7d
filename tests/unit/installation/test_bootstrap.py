"""tools/bootstrap.py: what it refuses, what it repeats, what it mends. Installing for real is in tests/integration."""

import subprocess
import sys
from pathlib import Path

import bootstrap
import pytest


def test_step_runs_once_and_again_when_an_input_changes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_text("one")
    step = bootstrap.Step("a step", ["sh", "-c", f"echo x >> {target}"], [source])
    for content, runs in (("one", 1), ("one", 1), ("two", 2), ("two", 2)):
        source.write_text(content)
        bootstrap.run_step(step, step.digest("start"), tmp_path)
        assert target.read_text().count("x") == runs
    assert "up to date" in capsys.readouterr().out


def test_digest_depends_on_earlier_steps_and_the_command() -> None:
    step, other = bootstrap.Step("a", ["true"]), bootstrap.Step("a", ["false"])
    assert len({step.digest(""), step.digest("earlier"), other.digest("")}) == 3


def test_failed_step_shows_its_end_without_noise_and_leaves_no_stamp(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noise = "WARNING: Location 'file:///somewhere/' is ignored: it is neither a file nor a directory."
    command = ["sh", "-c", f'echo "{noise}"; echo "ERROR: no such package"; exit 7']
    step = bootstrap.Step("a step", command)
    with pytest.raises(bootstrap.BootstrapError, match="step 'a step' failed; full output in"):
        bootstrap.run_step(step, step.digest(""), tmp_path)
    shown = capsys.readouterr().out
    assert "ERROR: no such package" in shown
    assert "is ignored" not in shown
    assert list(tmp_path.glob("*.stamp")) == []


def test_half_installed_packages_are_removed(tmp_path: Path) -> None:
    site = tmp_path / "lib" / "python3.11" / "site-packages"
    whole, half, moved = site / "whole-1.dist-info", site / "half-1.dist-info", site / "~oved"
    for directory in (whole, half, moved):
        directory.mkdir(parents=True)
        (directory / "METADATA").touch()
    (whole / "RECORD").touch()
    (site / "~file.so").touch()
    bootstrap.mend(tmp_path)
    assert sorted(path.name for path in site.iterdir()) == ["whole-1.dist-info"]


def test_directory_of_somebody_else_is_never_removed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("data")
    with pytest.raises(bootstrap.BootstrapError, match=r"was not made by this program.*make VENV="):
        bootstrap.make_venv(tmp_path, "", "cpu")
    assert (tmp_path / "precious").exists()


def test_half_made_environment_and_the_other_stack_are_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    real = subprocess.run

    def fake_run(command: list[str], **options: object) -> object:
        if command[1:3] == ["-m", "venv"]:
            made.append(command[-1])
            (Path(command[-1]) / "bin").mkdir(parents=True)
            (Path(command[-1]) / "bin" / "python").symlink_to(sys.executable)
            return subprocess.CompletedProcess(command, 0)
        return real(command, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "run", fake_run)
    venv = tmp_path / "venv"
    (venv / bootstrap.STATE).mkdir(parents=True)
    (venv / "half").touch()
    assert bootstrap.make_venv(venv, "", "cpu") == venv / "bin" / "python"
    assert not (venv / "half").exists()
    (venv / bootstrap.STATE / "stack").write_text("cpu")
    bootstrap.make_venv(venv, "", "cpu")
    assert len(made) == 1
    bootstrap.make_venv(venv, "", "gpu")
    assert len(made) == 2


def test_missing_venv_module_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = subprocess.run

    def fake_run(command: list[str], **options: object) -> object:
        if command[1] == "-m":
            return subprocess.CompletedProcess(command, 1)
        return real(command, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "run", fake_run)
    with pytest.raises(bootstrap.BootstrapError, match="apt install python3-venv"):
        bootstrap.make_venv(tmp_path / "venv", "", "cpu")


def test_python_without_ensurepip_is_filled_by_its_own_pip(tmp_path: Path) -> None:
    """Debian's python3 without python3-venv: the venv module is there, ensurepip is not."""
    shim = tmp_path / "python3"
    shim.write_text(
        "#!/bin/sh\n"
        f'case "$*" in "-m venv --without-pip"*|"-m pip"*|"-c"*) exec {sys.executable} "$@";; *) exit 1;; esac\n'
    )
    shim.chmod(0o755)
    inside = bootstrap.make_venv(tmp_path / "venv", str(shim), "cpu")
    assert subprocess.run([inside, "-m", "pip", "--version"], capture_output=True).returncode == 0


def test_stacks_install_what_the_project_declares() -> None:
    cpu = [" ".join(step.command) for step in bootstrap.cpu_steps(["pip"], dev=True)]
    gpu = [" ".join(step.command) for step in bootstrap.gpu_steps(["pip"], dev=False)]
    assert all("lock-cpu.txt" in command for command in cpu)
    assert all("lock-gpu.txt" in command for command in gpu)
    assert sum(command.endswith("[cpu,dev]") for command in cpu) == 1
    assert gpu[-1].endswith("[gpu]")
    assert not any("flash" in command for command in gpu)
    assert next(command for command in cpu if "--no-deps" in command).endswith("torchvision_cpu_shim")
