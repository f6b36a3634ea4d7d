"""What set-up does on machines with NVIDIA cards: tools/nvidia_driver.py, cuda_build.py and flash_attention.py."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import bootstrap
import cuda_build
import nvidia_driver
import pytest
from cuda_build import Machine, Toolkit
from flash_attention import FlashAttention

H100 = ["9.0"]
ENVIRONMENT = ("CUDA_HOME", "CUDA_PATH", "CXX", "MAX_JOBS", "FLASH_ATTN_CUDA_ARCHS")


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def nvcc(home: Path, release: str) -> Path:
    (home / "include").mkdir(parents=True, exist_ok=True)
    (home / "include" / "cusparse.h").touch()
    return program(home / "bin" / "nvcc", f"echo 'Cuda compilation tools, release {release}, V{release}.1'")


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only directory on PATH."""
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cuda_build, "USUAL_HOME", str(tmp_path / "usual"))
    (tmp_path / "system" / "bin").mkdir(parents=True)
    monkeypatch.setenv("PATH", str(tmp_path / "system" / "bin"))
    return tmp_path / "system" / "bin"


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "bin" / "python").symlink_to(sys.executable)
    (tmp_path / "venv" / "lib" / "python3.12" / "site-packages").mkdir(parents=True)
    return tmp_path / "venv"


def lock_toolkit(venv: Path) -> Path:
    """The compiler of the lock's own wheels."""
    home = venv / "lib" / "python3.12" / "site-packages" / "nvidia" / "cu13"
    nvcc(home, "13.2")
    (home / "lib").mkdir()
    (home / "lib" / "libcudart.so.13").touch()
    return home


class FakeCommands:
    """What commands do in an environment: a wheel that fits, is unfit or is not there; a build that works or fails."""

    def __init__(self, venv: Path, wheel: str = "none", build: str = "works", trial: bool = True) -> None:
        self.metadata = venv / "lib" / "python3.12" / "site-packages" / "flash_attn-2.8.3.dist-info"
        self.wheel, self.build, self.trial = wheel, build, trial
        self.fits = True
        self.calls: list[str] = []
        self.variables: Mapping[str, str] = {}

    def __call__(self, command: Sequence[str], variables: Mapping[str, str]) -> bool:
        if command[1] == "-c":
            return self.fits
        if "uninstall" in command:
            self.calls.append("remove")
            self.metadata.rmdir()
            return True
        if "--only-binary" in command:
            self.calls.append("wheel")
            return self._install(self.wheel)
        if "--no-build-isolation" in command:
            assert {"--no-deps", "--no-cache-dir", "--no-binary"} <= set(command)
            self.calls.append("build")
            self.variables = dict(variables)
            return self._install(self.build)
        if command[0].endswith("nvcc"):
            self.calls.append("trial")
            return self.trial
        assert command[-5:] == ["ninja", "packaging", "psutil", "setuptools", "wheel"]
        return True

    def _install(self, kind: str) -> bool:
        if kind in ("none", "fails"):
            return False
        self.metadata.mkdir()
        self.fits = kind != "unfit"
        return True


def settle(venv: Path, commands: FakeCommands, capabilities: Sequence[str] = H100, inputs: str = "") -> tuple[str, str]:
    """Architectures of a build, and why there is no flash-attention."""
    machine = cuda_build.inspect(venv, capabilities)
    outcome = FlashAttention(venv, ["pip"], commands).settle(machine, inputs or repr(machine), venv / "stamp")
    assert commands.metadata.exists() == (not outcome.missing)
    return outcome.built_for, outcome.missing


NO_GPU, NO_NVCC = "no GPU that it could be built for is in sight", "no nvcc of CUDA 13"
TABLE = [
    # wheel, nvcc on PATH, nvcc of the lock, cards, build -> calls, built for, why not
    ("fits", "", False, [], "", "wheel", "", ""),
    ("fits", "13.0", True, H100, "works", "wheel", "", ""),
    ("unfit", "", False, H100, "", "wheel remove", "", NO_NVCC),
    ("unfit", "13.0", False, H100, "works", "wheel remove trial build", "90", ""),
    ("none", "13.0", False, H100, "works", "wheel trial build", "90", ""),
    ("none", "13.0", True, ["8.9", "8.0"], "works", "wheel trial build", "80", ""),
    ("none", "", True, ["12.0", "9.0"], "works", "wheel trial build", "90;120", ""),
    ("none", "12.8", True, ["10.3"], "works", "wheel trial build", "100", ""),
    ("none", "12.8", False, H100, "works", "wheel", "", NO_NVCC),
    ("none", "", False, H100, "works", "wheel", "", NO_NVCC),
    ("none", "13.0", True, [], "works", "wheel", "", NO_GPU),
    ("none", "13.0", True, ["7.5"], "works", "wheel", "", NO_GPU),
    ("none", "13.0", False, H100, "fails", "wheel trial build", "", "building it failed"),
    ("none", "13.0", False, H100, "unfit", "wheel trial build remove", "", "building it failed"),
    ("none", "", True, H100, "fails", "wheel trial build", "", "building it failed"),
]


@pytest.mark.parametrize(("wheel", "on_path", "of_lock", "cards", "build", "calls", "built_for", "why_not"), TABLE)
def test_decision_table(
    programs: Path, venv: Path, wheel: str, on_path: str, of_lock: bool, cards: list[str], build: str, calls: str,
    built_for: str, why_not: str,
) -> None:  # fmt: skip
    program(programs / "c++", "")
    if on_path:
        nvcc(programs.parent, on_path)
    if of_lock:
        lock_toolkit(venv)
    commands = FakeCommands(venv, wheel, build)
    said = settle(venv, commands, cards)
    assert (" ".join(commands.calls), said[0]) == (calls, built_for)
    assert said[1] == "" if not why_not else why_not in said[1]
    # Whatever it was, nothing is tried again.
    assert settle(venv, commands, cards) == said
    assert " ".join(commands.calls) == calls


def test_failed_build_is_tried_again_when_something_changed(programs: Path, venv: Path) -> None:
    program(programs / "c++", "")
    nvcc(programs.parent, "13.0")
    commands = FakeCommands(venv, build="fails")
    assert settle(venv, commands)[1]
    nvcc(programs.parent, "13.1")
    commands.build = "works"
    assert settle(venv, commands) == ("90", "")


def test_without_a_compiler_or_where_the_trial_fails_nothing_is_built(programs: Path, venv: Path) -> None:
    nvcc(programs.parent, "13.0")
    commands = FakeCommands(venv, trial=False)
    assert "apt install g++" in settle(venv, commands)[1]
    program(programs / "c++", "")
    assert f"{programs / 'nvcc'} compiles no extension" in settle(venv, commands)[1]
    assert "build" not in commands.calls


def test_nvcc_without_its_toolkit_is_passed_over(programs: Path, venv: Path) -> None:
    """As where PATH has a script that runs the nvcc of another directory."""
    nvcc(programs.parent, "13.0")
    (programs.parent / "include" / "cusparse.h").unlink()
    assert cuda_build.find_toolkit(venv) is None
    home = nvcc(Path(cuda_build.USUAL_HOME), "13.0").parents[1]
    assert cuda_build.find_toolkit(venv) == Toolkit(home, "release 13.0", of_lock=False)


def test_what_was_installed_by_hand_counts(programs: Path, venv: Path) -> None:
    commands = FakeCommands(venv)
    assert settle(venv, commands)[1]
    commands.metadata.mkdir()
    assert settle(venv, commands) == ("", "")
    assert commands.calls == ["wheel"]


def test_another_torch_has_it_built_anew_and_another_card_too(programs: Path, venv: Path) -> None:
    program(programs / "c++", "")
    nvcc(programs.parent, "13.0")
    commands = FakeCommands(venv)
    settle(venv, commands)
    del commands.calls[:]
    assert settle(venv, commands, inputs="changed, but it fits") == ("90", "")
    assert settle(venv, commands, [], inputs="a login node") == ("90", "")
    assert commands.calls == []
    assert settle(venv, commands, ["8.0"]) == ("80", "")
    assert commands.calls == ["remove", "wheel", "trial", "build"]
    commands.fits = False
    assert settle(venv, commands, ["8.0"], inputs="another torch") == ("80", "")


def test_stamp_of_another_form_counts_as_none(programs: Path, venv: Path) -> None:
    (venv / "stamp").write_text("0123abcd")
    commands = FakeCommands(venv, wheel="fits")
    assert settle(venv, commands) == ("", "")


def test_build_uses_the_toolkit_for_these_cards_within_memory(
    programs: Path, venv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_build, "available_gib", lambda: 3 * cuda_build.GIB_PER_JOB + 1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))
    program(programs / "c++", "")
    home = nvcc(programs.parent, "13.0").parents[1]
    commands = FakeCommands(venv)
    settle(venv, commands, ["9.0"] * 8)
    assert commands.variables == {
        "CUDA_HOME": str(home),
        "FLASH_ATTN_CUDA_ARCHS": "90",
        "FLASH_ATTENTION_FORCE_BUILD": "TRUE",
        "MAX_JOBS": "3",
        "NVCC_THREADS": "1",
        "PATH": f"{venv / 'bin'}:{programs}",
    }
    monkeypatch.setenv("MAX_JOBS", "7")
    monkeypatch.setenv("FLASH_ATTN_CUDA_ARCHS", "80;90")
    assert settle(venv, commands, []) == ("80;90", "")
    assert commands.variables["MAX_JOBS"] == "7"


def test_locks_own_compiler_is_helped_to_headers_and_libraries(tmp_path: Path, venv: Path) -> None:
    home = lock_toolkit(venv)
    toolkit = Toolkit(home, "release 13.2", of_lock=True)
    variables = cuda_build.variables(Machine("90", toolkit, "c++"), toolkit, venv, tmp_path)
    assert variables["LIBRARY_PATH"] == str(tmp_path)
    assert (tmp_path / "libcudart.so").resolve() == home / "lib" / "libcudart.so.13"
    assert "CCCL_DISABLE_CTK_COMPATIBILITY_CHECK" in variables["NVCC_APPEND_FLAGS"]


@pytest.mark.parametrize(("cores", "memory_gib", "expected"), [(2, 400, 2), (64, 41, 5), (8, 1, 1)])
def test_jobs_are_bounded_by_cores_and_memory(cores: int, memory_gib: float, expected: int) -> None:
    assert cuda_build.jobs(cores, memory_gib) == expected
    assert 0 < cuda_build.available_gib() < 1e5


def test_step_says_in_one_line_that_it_was_left_out(
    programs: Path, venv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cuda_build, "find_toolkit", lambda venv: None)
    for _ in range(2):
        bootstrap.flash_step(venv, [str(program(tmp_path / "pip", "echo no wheel here; exit 1"))], tmp_path)
    first, second = capsys.readouterr().out.splitlines()
    assert first == second
    assert "left out: pip finds no wheel that fits, and no GPU" in first
    assert "runs use sdpa attention, without packing" in first
    assert (tmp_path / "flash-attention.log").read_text() == "no wheel here\n"


def smi(programs: Path, driver: str) -> None:
    answers = f"case $1 in *driver_version) echo {driver};; *compute_cap) echo 9.0;; esac"
    program(programs / "nvidia-smi", answers if driver else "exit 9")


@pytest.mark.parametrize(
    ("driver", "asked", "stack"),
    [
        ("", "auto", "cpu"),
        ("", "gpu", "gpu"),
        ("580.65.06", "auto", "gpu"),
        ("610.1", "auto", "gpu"),
        ("575.57.08", "auto", None),
        ("575.57.08", "gpu", "gpu"),
        ("575.57.08", "cpu", "cpu"),
    ],
)
def test_driver_decides_the_stack(
    programs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    driver: str,
    asked: str,
    stack: str | None,
) -> None:
    monkeypatch.setattr("glob.glob", lambda pattern: ["/dev/nvidia0"])
    smi(programs, driver)
    installed = []
    monkeypatch.setattr(bootstrap, "bootstrap", lambda venv, stack, *rest: installed.append(stack))
    code = bootstrap.main(["--stack", asked, "--venv", str(tmp_path / "venv")])
    said = capsys.readouterr()
    assert installed == ([stack] if stack else [])
    assert code == (0 if stack else 1)
    old = driver.startswith("575") and asked != "cpu"
    [line] = (said.err if not stack else said.out).splitlines() if old else [""]
    assert ("driver is 575.57.08, but torch 2.11 is built for CUDA 13, which needs 580" in line) == old
    assert ("make STACK=cpu" in line) == (stack is None)


def test_cards_need_a_device_and_a_driver_that_answers(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smi(programs, "580.65.06")
    monkeypatch.setattr("glob.glob", lambda pattern: [])
    assert nvidia_driver.query("driver_version") == []
    monkeypatch.setattr("glob.glob", lambda pattern: ["/dev/nvidia0"])
    assert nvidia_driver.query("compute_cap") == H100
    smi(programs, "")
    assert nvidia_driver.query("driver_version") == []
    (programs / "nvidia-smi").unlink()
    assert nvidia_driver.query("driver_version") == []
