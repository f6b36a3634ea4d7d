"""A built wheel and an editable install: both show veRL the plug-in and the recipes, from any directory."""

import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "NOTICE", "speciarl", "recipe", "data_prep")


def run(*command: str | Path, cwd: Path = Path("/")) -> str:
    """Run a command to its end; its output goes into the message if it fails."""
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=cwd, timeout=300)
    assert result.returncode == 0, f"{command}\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
    return result.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is built, so that no build leaves anything in the real checkout."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy / name)
    (copy / "tests").mkdir()
    (copy / "tests" / "__init__.py").touch()
    return copy


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, checkout)
    return next(out.glob("speciarl-*.whl"))


def make_environment(directory: Path, *install: str | Path) -> Path:
    """A new virtual environment that sees the packages of this one, but not its SpeciaRL. Returns its bin directory."""
    run(sys.executable, "-m", "venv", "--without-pip", directory)
    python = directory / "bin" / "python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    # A line in a .pth file adds the directory without its own .pth files, so our editable install there stays out.
    (site / "base.pth").write_text(f"{sysconfig.get_path('purelib')}\nimport torchvision_cpu_shim\n")
    run(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", *install)
    return directory / "bin"


@pytest.fixture(scope="module")
def from_wheel(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_environment(tmp_path_factory.mktemp("wheel") / "venv", wheel)


@pytest.fixture(scope="module")
def editable(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_environment(tmp_path_factory.mktemp("editable") / "venv", "--no-build-isolation", "-e", checkout)


def test_wheel_holds_the_data_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    top = {name.partition("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"speciarl", "recipe", "data_prep"}
    for folder, pattern in (
        ("recipe", "**/*.yaml"),
        ("speciarl/verifier_server/prompts", "*.yaml"),
        ("speciarl/laptop/models", "**/*.*"),
        ("speciarl/training/observability", "*.jinja"),
        ("speciarl/evaluation/conf", "**/*.yaml"),
        ("speciarl/evaluation/report/page/assets", "*"),
        ("data_prep/emoji", "*.csv"),
        ("data_prep/conf", "**/*.yaml"),
        ("data_prep/prompts", "*.txt"),
    ):
        shipped = {str(path.relative_to(ROOT)) for path in (ROOT / folder).glob(pattern) if path.is_file()}
        assert shipped
        assert shipped <= names
    assert [name for name in names if name.endswith("licenses/LICENSE")]
    assert "speciarl/py.typed" in names
    metadata = next(name for name in names if name.endswith("METADATA"))
    assert "License-Expression: Apache-2.0" in zipfile.ZipFile(wheel).read(metadata).decode()


@pytest.mark.parametrize("kind", ["from_wheel", "editable"])
def test_recipes_compose_under_verls_own_command(
    kind: str, request: pytest.FixtureRequest, checkout: Path, tmp_path: Path
) -> None:
    binaries: Path = request.getfixturevalue(kind)
    python = binaries / "python"
    home = checkout if kind == "editable" else binaries.parent
    where = run(python, "-c", "import speciarl; print(speciarl.__file__)", cwd=tmp_path)
    assert where.startswith(str(home))
    composed = run(
        python, "-m", "verl.trainer.main_ppo", "+recipe=[speciarl,laptop]", "--cfg", "job", "--resolve", cwd=tmp_path
    )
    assert "adv_estimator: grpo" in composed
    assert "device: cpu" in composed
    assert f"path: {home}" in composed  # the laptop policy, shipped in the package
    assert "+recipe=laptop" in run(binaries / "speciarl", "recipes", cwd=tmp_path)
    shown = run(binaries / "speciarl", "data", "build", "dataset=cub200", "prompts=specific", "--show", cwd=tmp_path)
    assert '"root": "data/raw/cub200"' in shown


def test_help_of_verls_command_lists_our_groups_only(from_wheel: Path, tmp_path: Path) -> None:
    shown = run(from_wheel / "python", "-m", "verl.trainer.main_ppo", "--help", cwd=tmp_path)
    groups = [line.partition(":")[0] for line in shown.splitlines() if line.startswith("recipe")]
    assert "recipe" in groups
    assert "recipe/verifier" in groups
    assert "simple_use_case" not in shown  # TransferQueue puts a directory `recipe` of its own into site-packages
