"""Forms of numbers for people: three decimals, intervals in brackets, a sign before differences."""

from __future__ import annotations

from speciarl.evaluation.results import Estimate

NONE = "—"
"""What stands for an undefined number."""


def number(value: float | None) -> str:
    """A number: ``.883``, ``48.0`` beyond one, ``—`` for none."""
    if value is None:
        return NONE
    if abs(value) > 1:
        return f"{value:,.1f}"
    text = f"{value:.3f}"
    return text.replace("0.", ".", 1) if text.lstrip("-").startswith("0.") else text


def change(value: float | None) -> str:
    """A difference: ``+.093``."""
    return number(value) if value is None or value < 0 else f"+{number(value)}"


def interval(estimate: Estimate, of_change: bool = False) -> str:
    """The confidence interval: ``[.871, .894]``; empty where none is computed."""
    if estimate.low is None or estimate.high is None:
        return ""
    form = change if of_change else number
    return f"[{form(estimate.low)}, {form(estimate.high)}]"


def bounds(estimate: Estimate) -> str:
    """What the number would be with all unscored answers at their worst and best: ``.870 to .890``."""
    if estimate.lower_bound is None or estimate.upper_bound is None:
        return NONE
    low, high = number(estimate.lower_bound), number(estimate.upper_bound)
    return low if low == high else f"{low} to {high}"


def share(value: float) -> str:
    """A share in percent: ``1.3 %``; ``0`` only where it is exactly none."""
    if value == 0:
        return "0"
    return "<0.1 %" if value < 0.001 else f"{100 * value:.1f} %"


def p_value(p: float) -> str:
    """A p value: ``.013``, ``<.001``."""
    return "<.001" if p < 0.001 else number(p)
