"""tools/gpu_bundle.py and the script that travels with the parts: split, carried, joined, checked, installed."""

import importlib.util
import json
import subprocess
import sys
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[3]
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
PART = 1500


def loaded(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    return loaded("gpu_bundle")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return loaded("gpu_bundle_install")


def wheel(folder: Path, name: str, source: str, version: str = "1.0") -> Path:
    """A whole, tiny wheel of one module."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": source,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in (*files, f"{info}/RECORD"))
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for inside, text in (files | {f"{info}/RECORD": record}).items():
            archive.writestr(inside, text)
    return path


@pytest.fixture
def bundle(tool: ModuleType, tmp_path: Path) -> Path:
    """A folder as it is carried: two wheels in several parts."""
    made, out = tmp_path / "made", tmp_path / "bundle"
    made.mkdir()
    out.mkdir()
    wheels = [wheel(made, "first", "answer = 42\n"), wheel(made, "second", f"text = {'x' * 3000!r}\n")]
    tool.pack(wheels, out, PYTHON, most=PART)
    return out


def test_parts_are_no_larger_than_asked_and_join_to_the_same_wheels(
    bundle: Path, script: ModuleType, tmp_path: Path
) -> None:
    manifest = script.read_manifest(bundle)
    sizes = [(bundle / part["name"]).stat().st_size for part in manifest["parts"]]
    assert len(sizes) > 3
    assert set(sizes[:-1]) == {PART}
    assert 0 < sizes[-1] <= PART
    wheels = script.unpack(bundle, manifest)
    for name in ("first-1.0-py3-none-any.whl", "second-1.0-py3-none-any.whl"):
        assert (wheels / name).read_bytes() == (tmp_path / "made" / name).read_bytes()


def test_unpacked_wheels_are_not_unpacked_again(bundle: Path, script: ModuleType) -> None:
    manifest = script.read_manifest(bundle)
    script.unpack(bundle, manifest)
    (bundle / manifest["parts"][0]["name"]).unlink()
    assert len(list(script.unpack(bundle, manifest).iterdir())) == 2


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[700] ^= 1
    path.write_bytes(content)


DAMAGE: list[tuple[Callable[[Path], None], str]] = [
    (flip, "wheels.tar.001 is damaged"),
    (lambda path: path.write_bytes(path.read_bytes()[:-1]), "wheels.tar.001 is damaged"),
    (lambda path: path.unlink(), "wheels.tar.001 is missing"),
]


@pytest.mark.parametrize(("damage", "said"), DAMAGE, ids=["a bit flipped", "cut short", "left behind"])
def test_a_bad_part_is_named_in_one_line(
    bundle: Path, script: ModuleType, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], None], said: str
) -> None:
    damage(bundle / "wheels.tar.001")
    assert script.main(["--folder", str(bundle)]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1
    assert not (bundle / "wheels").exists()


def test_a_folder_without_its_manifest_is_no_bundle(
    bundle: Path, script: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    (bundle / "manifest.json").unlink()
    assert script.main(["--folder", str(bundle)]) == 1
    assert "manifest.json is missing or damaged" in capsys.readouterr().err


def test_another_python_is_refused(bundle: Path, script: ModuleType) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    (bundle / "manifest.json").write_text(json.dumps(manifest | {"python": "3.9"}))
    with pytest.raises(script.BundleError, match=r"for Python 3\.9, and this is"):
        script.install(bundle)


def test_the_script_installs_into_the_python_that_runs_it(bundle: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    venv.create(target, with_pip=True)
    python = str(target / "bin" / "python")
    words = [python, str(bundle / "install.py")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    probe = "import first, second; print(first.answer, len(second.text))"
    assert subprocess.run([python, "-c", probe], capture_output=True, text=True).stdout.split() == ["42", "3000"]


def test_lock_is_read_for_one_python(tool: ModuleType, tmp_path: Path) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text(
        "# a comment\nfirst==1.0\nold==2.0 ; python_full_version < '3.11.3'\n"
        "ours==3.0 ; python_full_version >= '3.12' and sys_platform == 'linux'\nmac==1.0 ; sys_platform == 'darwin'\n"
    )
    assert [one.name for one in tool.read_lock(lock, "3.12")] == ["first", "ours"]
    assert [one.name for one in tool.read_lock(lock, "3.11")] == ["first", "old"]


def test_what_the_machine_has_is_left_out_but_only_at_the_locked_version(tool: ModuleType, tmp_path: Path) -> None:
    lock, have = tmp_path / "lock.txt", tmp_path / "have.txt"
    lock.write_text("torch==2.11.0\nnumpy==2.3.5\nray==2.60.0\nsome-thing==1.0\n")
    have.write_text("torch==2.11.0+cu130\nnumpy==1.26.4\nsome_thing==1.0.0\n\n")
    lacks = tool.lacking(tool.read_lock(lock, "3.12"), tool.read_have(have))
    assert [one.name for one in lacks] == ["numpy", "ray"]


@pytest.mark.parametrize("line", ["torch", "torch>=2", "torch @ file:///torch.whl", "Package Version"])
def test_a_line_that_pins_nothing_is_named(tool: ModuleType, tmp_path: Path, line: str) -> None:
    have = tmp_path / "have.txt"
    have.write_text(f"numpy==2.3.5\n{line}\n")
    with pytest.raises(tool.BundleError, match=r"have\.txt, line 2: .* write it with `pip list --format=freeze`"):
        tool.read_have(have)


def test_every_line_of_the_gpu_lock_pins_a_version(tool: ModuleType) -> None:
    for python in ("3.11", "3.12"):
        wanted = tool.read_lock(tool.LOCK, python)
        assert {"vllm", "verl", "ray", "torch"} <= {one.name for one in wanted}
        assert all(tool.version_of(one) for one in wanted)


def test_a_wheel_that_is_there_is_found_by_name_and_version(tool: ModuleType, tmp_path: Path) -> None:
    wheel(tmp_path, "some_thing", "", version="1.0")
    (tmp_path / "broken.whl").touch()
    (tmp_path / "lock.txt").write_text("Some.Thing==1.0\nsome-thing==2.0\n")
    one, two = tool.read_lock(tmp_path / "lock.txt", "3.12")
    assert tool.find_wheel(tmp_path, one).name == "some_thing-1.0-py3-none-any.whl"
    assert tool.find_wheel(tmp_path, two) is None


def test_platforms_of_a_glibc_come_best_first(tool: ModuleType) -> None:
    names = tool.platforms("2.28")
    assert names[0] == "manylinux_2_28_x86_64"
    assert "manylinux_2_31_x86_64" not in names
    assert {"manylinux_2_17_x86_64", "manylinux2014_x86_64"} <= set(names)


def test_an_interrupted_packing_leaves_no_bundle(tool: ModuleType, bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        tool.pack([tmp_path / "made" / "first-1.0-py3-none-any.whl", tmp_path / "gone.whl"], bundle, PYTHON, most=PART)
    assert not (bundle / "manifest.json").exists()
