"""tools/interpreter.py: which Python an environment is made with, and what is said where there is none."""

import ast
import os
import sys
from pathlib import Path

import interpreter
import pytest
from bootstrap_error import BootstrapError

TOOLS = Path(interpreter.__file__).parent
UV_FAILS = """#!/bin/sh
echo "error: Failed to install cpython-3.12.1" >&2
echo "  cause: no route to host" >&2
exit 2
"""
UV_WORKS = """#!/bin/sh
while [ "$1" != --install-dir ]; do shift; done
mkdir -p "$2/cpython-3.12.1-linux-x86_64-gnu/bin"
printf '#!/bin/sh\\necho 3 12\\n' > "$2/cpython-3.12.1-linux-x86_64-gnu/bin/python3.12"
chmod +x "$2/cpython-3.12.1-linux-x86_64-gnu/bin/python3.12"
echo x >> "$2/calls"
"""


def program(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


def fake_python(path: Path, version: str) -> Path:
    """A program that answers like an interpreter of some version, and has no pip."""
    return program(path, f'#!/bin/sh\n[ "$1" = -m ] && echo "No module named pip" >&2 && exit 1\necho {version}\n')


@pytest.fixture
def old_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with Python 3.10 only, as Ubuntu 22.04; gives the directory of its programs."""
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setattr(sys, "executable", str(fake_python(programs / "python3", "3 10")))
    monkeypatch.setattr(os, "defpath", "")
    monkeypatch.setenv("PATH", f"{programs}:/bin")
    monkeypatch.setattr(interpreter, "CANDIDATES", ("python3",))
    return programs


def test_running_python_is_taken_if_it_is_in_range(tmp_path: Path) -> None:
    assert interpreter.find_python("", tmp_path) == sys.executable


def test_other_pythons_are_searched_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(fake_python(tmp_path / "running", "3 14")))
    suitable = fake_python(tmp_path / "python3.12", "3 12")
    monkeypatch.setenv("PATH", f"{tmp_path}:/nowhere")
    assert interpreter.find_python("", tmp_path) == str(suitable)


@pytest.mark.parametrize(("version", "said"), [("3 14", "is 3.14"), ("3 9", "is 3.9"), ("nonsense", "was found")])
def test_python_asked_for_but_unsuitable_is_refused_in_one_line(tmp_path: Path, version: str, said: str) -> None:
    python = fake_python(tmp_path / "python", version)
    if version == "nonsense":
        python.write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(BootstrapError) as caught:
        interpreter.find_python(str(python), tmp_path)
    message = str(caught.value)
    assert said in message
    assert "make PYTHON=" in message
    assert "\n" not in message


def test_uv_of_the_machine_fetches_one_once_and_that_is_said(
    old_machine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program(old_machine / "uv", UV_WORKS)
    place = tmp_path / ".venv-python"
    for _ in range(2):
        assert interpreter.find_python("", place) == str(
            place / "cpython-3.12.1-linux-x86_64-gnu" / "bin" / "python3.12"
        )
    assert (place / "calls").read_text() == "x\n"
    [line] = capsys.readouterr().out.splitlines()
    assert f"{old_machine / 'python3'} is 3.10" in line
    assert "GitHub" in line
    assert str(place) in line


def test_uv_comes_from_the_package_index_if_the_machine_has_none(old_machine: Path, tmp_path: Path) -> None:
    place = tmp_path / ".venv-python"
    (tmp_path / "uv").write_text(UV_WORKS)
    uv = place / "uv" / "bin" / "uv"
    pip = f'mkdir -p {uv.parent}; cp {tmp_path}/uv {uv}; chmod +x {uv}; echo "$@" > {place}/pip'
    program(old_machine / "python3", f'#!/bin/sh\nif [ "$1" = -m ]; then {pip}; else echo 3 10; fi\n')
    assert interpreter.find_python("", place).startswith(str(place))
    assert (place / "pip").read_text().endswith(f"--target {place}/uv uv\n")


@pytest.mark.parametrize("uv", [UV_FAILS, None])
def test_without_a_network_one_line_says_what_to_do(
    old_machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uv: str | None
) -> None:
    if uv:
        program(old_machine / "uv", uv)
    with pytest.raises(BootstrapError) as caught:
        interpreter.find_python("", tmp_path / "place")
    message = str(caught.value)
    assert "\n" not in message
    assert "is 3.10" in message
    expected = (
        "Python 3.12 with uv cannot be had (cause: no route to host)" if uv else "uv from the package index cannot"
    )
    assert expected in message
    assert message.endswith("make PYTHON=/path/to/python3.12 ...")


def test_fetching_has_a_deadline(old_machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(old_machine / "uv", "#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(interpreter, "DOWNLOAD_DEADLINE_S", 0.2)
    with pytest.raises(BootstrapError, match=r"no end after 0\.2 s"):
        interpreter.find_python("", tmp_path / "place")


@pytest.mark.parametrize("name", ["bootstrap", "bootstrap_error", "cuda_build", "flash_attention", "interpreter"])
def test_set_up_is_understood_by_pythons_that_it_replaces(name: str) -> None:
    ast.parse((TOOLS / f"{name}.py").read_text(encoding="utf-8"), feature_version=(3, 8))
