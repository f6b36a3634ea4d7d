"""tools/bootstrap.py: what it refuses, what it repeats, what it mends. Installing for real is in tests/integration."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def bootstrap() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bootstrap", ROOT / "tools" / "bootstrap.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def fake_python(path: Path, version: str) -> Path:
    """A program that answers like an interpreter of some version."""
    path.write_text(f"#!/bin/sh\necho {version}\n")
    path.chmod(0o755)
    return path


def test_running_python_is_taken_if_it_is_in_range(bootstrap: ModuleType) -> None:
    assert bootstrap.find_python("") == sys.executable


def test_other_pythons_are_searched_else(
    bootstrap: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(fake_python(tmp_path / "running", "3 14")))
    suitable = fake_python(tmp_path / "python3.12", "3 12")
    monkeypatch.setenv("PATH", f"{tmp_path}:/nowhere")
    assert bootstrap.find_python("") == str(suitable)


@pytest.mark.parametrize(("version", "said"), [("3 14", "is 3.14"), ("3 9", "is 3.9"), ("nonsense", "was found")])
def test_unsuitable_python_is_refused_in_one_line(
    bootstrap: ModuleType, tmp_path: Path, version: str, said: str
) -> None:
    python = fake_python(tmp_path / "python", version)
    if version == "nonsense":
        python.write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(bootstrap.BootstrapError) as caught:
        bootstrap.find_python(str(python))
    message = str(caught.value)
    assert said in message
    assert "make PYTHON=" in message
    assert "\n" not in message


def test_step_runs_once_and_again_when_an_input_changes(
    bootstrap: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_text("one")
    step = bootstrap.Step("a step", ["sh", "-c", f"echo x >> {target}"], [source])
    for content, runs in (("one", 1), ("one", 1), ("two", 2), ("two", 2)):
        source.write_text(content)
        bootstrap.run_step(step, step.digest("start"), tmp_path)
        assert target.read_text().count("x") == runs
    assert "up to date" in capsys.readouterr().out


def test_digest_depends_on_earlier_steps_and_the_command(bootstrap: ModuleType) -> None:
    step, other = bootstrap.Step("a", ["true"]), bootstrap.Step("a", ["false"])
    assert len({step.digest(""), step.digest("earlier"), other.digest("")}) == 3


def test_failed_step_shows_its_end_without_noise_and_leaves_no_stamp(
    bootstrap: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
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


def test_half_installed_packages_are_removed(bootstrap: ModuleType, tmp_path: Path) -> None:
    site = tmp_path / "lib" / "python3.11" / "site-packages"
    whole, half, moved = site / "whole-1.dist-info", site / "half-1.dist-info", site / "~oved"
    for directory in (whole, half, moved):
        directory.mkdir(parents=True)
        (directory / "METADATA").touch()
    (whole / "RECORD").touch()
    (site / "~file.so").touch()
    bootstrap.mend(tmp_path)
    assert sorted(path.name for path in site.iterdir()) == ["whole-1.dist-info"]


def test_directory_of_somebody_else_is_never_removed(bootstrap: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("data")
    with pytest.raises(bootstrap.BootstrapError, match=r"was not made by this program.*make VENV="):
        bootstrap.make_venv(tmp_path, "", "cpu")
    assert (tmp_path / "precious").exists()


def test_half_made_environment_and_the_other_stack_are_replaced(
    bootstrap: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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


def test_missing_venv_module_is_named(bootstrap: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = subprocess.run

    def fake_run(command: list[str], **options: object) -> object:
        if command[1] == "-m":
            return subprocess.CompletedProcess(command, 1)
        return real(command, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "run", fake_run)
    with pytest.raises(bootstrap.BootstrapError, match="apt install python3-venv"):
        bootstrap.make_venv(tmp_path / "venv", "", "cpu")


def test_python_without_ensurepip_is_filled_by_its_own_pip(bootstrap: ModuleType, tmp_path: Path) -> None:
    """Debian's python3 without python3-venv: the venv module is there, ensurepip is not."""
    shim = tmp_path / "python3"
    shim.write_text(
        "#!/bin/sh\n"
        f'case "$*" in "-m venv --without-pip"*|"-m pip"*|"-c"*) exec {sys.executable} "$@";; *) exit 1;; esac\n'
    )
    shim.chmod(0o755)
    inside = bootstrap.make_venv(tmp_path / "venv", str(shim), "cpu")
    assert subprocess.run([inside, "-m", "pip", "--version"], capture_output=True).returncode == 0


def test_gpu_needs_a_device_and_a_driver(
    bootstrap: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smi = fake_python(tmp_path / "nvidia-smi", "GPU 0")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr("glob.glob", lambda pattern: ["/dev/nvidia0"])
    assert bootstrap.has_cuda()
    smi.write_text("#!/bin/sh\nexit 9\n")
    assert not bootstrap.has_cuda()
    monkeypatch.setattr("glob.glob", lambda pattern: [])
    fake_python(smi, "GPU 0")
    assert not bootstrap.has_cuda()


def test_stacks_install_what_the_project_declares(bootstrap: ModuleType) -> None:
    cpu = [" ".join(step.command) for step in bootstrap.cpu_steps(["pip"], dev=True)]
    gpu = [" ".join(step.command) for step in bootstrap.gpu_steps(["pip"], dev=False)]
    assert all("lock-cpu.txt" in command for command in cpu)
    assert all("lock-gpu.txt" in command for command in gpu)
    assert cpu[-1].endswith("[cpu,dev]")
    assert gpu[-1].endswith("[gpu]")
    assert next(command for command in cpu if "--no-deps" in command).endswith("torchvision_cpu_shim")
