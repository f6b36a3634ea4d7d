"""Examination: all checks, in the order in which their remedies build on each other."""

from collections.abc import Iterator

from speciarl.cpu import stack
from speciarl.doctor import extension, machine, packages
from speciarl.doctor.finding import Finding, Level


def examine() -> Iterator[Finding]:
    """Check packages, then what veRL sees of us, then the machine. Checks that need a broken part are left out."""
    extra = "cpu" if stack.built_for_cpu() else "gpu"
    broken = False
    for finding in _packages(extra):
        broken = broken or finding.level is Level.PROBLEM
        yield finding
    yield from extension.entry_points()
    for finding in extension.verl_plugin():
        broken = broken or finding.level is Level.PROBLEM
        yield finding
    if not broken:
        yield extension.trainer()
        yield extension.recipes()
        yield extension.laptop_models()
        yield extension.platform(extra)
    yield from _machine()


def _packages(extra: str) -> Iterator[Finding]:
    yield packages.python()
    yield packages.requirements(extra)
    yield packages.vllm(extra)
    yield from packages.unloadable(extra)
    yield packages.torchvision()
    yield from packages.flash_attention(extra)


def _machine() -> Iterator[Finding]:
    yield machine.cores()
    yield machine.memory()
    yield from machine.disk()
    yield from machine.shared_memory()
    yield from machine.ports()
    yield machine.open_files()
