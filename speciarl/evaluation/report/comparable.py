"""Comparability: what two numbers must have in common before one may be called better than the other."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from speciarl.errors import DataError
from speciarl.evaluation import tables

ANSWERED = {"prompt_sha": "prompt text", "data_sha": "data", "pixels": "image pixels"}
"""Facts of predictions that must agree, and what they are called."""
DEFINITIONS = ("weights", "abstain_is_wrong", "too_long_chars")
"""Settings of the metrics that change correctness, specificity or HM."""


class NotComparable(DataError):
    """Two evaluations differ in what a comparison takes for granted."""


def of_predictions(path: Path) -> dict[str, Any]:
    """What predictions depend on besides the model; raises NotComparable when the table does not tell."""
    facts = tables.facts(path)
    for fact, name in ANSWERED.items():
        if fact not in facts:
            raise NotComparable(f"{path} does not tell its {name} ({fact}); make the predictions again")
    return {name: facts[fact] for fact, name in ANSWERED.items()}


def of_verdicts(path: Path) -> dict[str, Any]:
    """The judge's identity; raises NotComparable when the table does not tell."""
    facts = tables.facts(path)
    if "judge" not in facts:
        raise NotComparable(f"{path} does not tell its judge; run the verify stage again")
    return {"judge": facts["judge"]}


def of_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The definitions of the metrics."""
    return {f"definition of metrics.{name}": settings["metrics"][name] for name in DEFINITIONS}


def differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What differs, by dotted name, with both values; None stands for what one side does not have."""
    one, other = dict(_flat(first)), dict(_flat(second))
    names = sorted(one.keys() | other.keys())
    return {name: (one.get(name), other.get(name)) for name in names if one.get(name) != other.get(name)}


def require(first: Mapping[str, Any], second: Mapping[str, Any], where: str) -> None:
    """Raise NotComparable naming the first field that differs, in one line."""
    for name, (one, other) in differing(first, second).items():
        raise NotComparable(
            f"{where}: not comparable, {name} is {_short(one)} in the first and {_short(other)} in the second; "
            "evaluate both with the same"
        )


def _flat(content: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in content.items():
        found += _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(f"{prefix}{key}", value)]
    return found


def _short(value: Any, most: int = 60) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= most else f"{text[:most]}…"
