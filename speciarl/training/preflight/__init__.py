"""What is checked of a run before Ray starts."""

from typing import Any


def __getattr__(name: str) -> Any:
    """``Preflight``, where recipes named it before 0.2; `speciarl.training.preflight.checks` is the present place."""
    if name != "Preflight":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from speciarl.training.preflight.checks import Preflight

    return Preflight
