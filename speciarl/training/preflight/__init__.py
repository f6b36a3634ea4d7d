"""Preflight: checks of a run's configuration, data and verifier before Ray starts."""

from typing import Any


def __getattr__(name: str) -> Any:
    """``Preflight``, under the name that recipes used before 0.2; it lives in `speciarl.training.preflight.checks`."""
    if name != "Preflight":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # On demand: agent-loop workers import this package for one check and shall not load all of them.
    from speciarl.training.preflight.checks import Preflight

    return Preflight
