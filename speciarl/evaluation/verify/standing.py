"""Standing of a verdict table: whether it can be reused as it is, has failures to ask again, or is another judge's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from speciarl.errors import DataError
from speciarl.evaluation import tables
from speciarl.evaluation.outcome import Outcome
from speciarl.evaluation.verify.rows import FAILED_PREDICTION, batches, content_hash
from speciarl.verdict import Reason

State = Literal["missing", "stale", "partial", "complete"]

_FINAL = frozenset({Reason.TOO_LONG.value, Reason.UNKNOWN_CONCEPT.value})
"""Reasons that the same judge would only repeat."""


@dataclass(frozen=True)
class Standing:
    """What a verdict table is worth to a judge."""

    state: State
    """``stale``: made of other predictions, or by another judge. ``partial``: has verdicts that failed."""
    differs: str = ""
    """Of a stale one the first field that differs, e.g. ``judge.prompt``."""
    answers: int = 0
    unscored: Mapping[str, int] = field(default_factory=dict)
    """Answers without a verdict, by reason."""


def standing(verdicts: Path, facts: Mapping[str, Any]) -> Standing:
    """Compare a table with the facts that it would be written with now; raises DataError for a damaged one."""
    if not verdicts.exists():
        return Standing("missing")
    try:
        found = tables.facts(verdicts)
    except DataError:  # damaged: made again
        return Standing("missing")
    differs = difference(found, facts)
    if differs:
        return Standing("stale", differs)
    answers, unscored = 0, Counter[str]()
    for batch in batches(verdicts, tables.VERDICTS, ("outcome", "reason")):
        answers += len(batch)
        unscored.update(reason for outcome, reason in batch if outcome == Outcome.UNSCORED)
    # What a service knows and how much it takes may change without its judge being another.
    final = frozenset[str]() if "service" in facts["judge"] else _FINAL
    again = any(not reason.startswith(FAILED_PREDICTION) and reason not in final for reason in unscored)
    return Standing("partial" if again else "complete", "", answers, dict(sorted(unscored.items())))


def refuse_stale(verdicts: Path, predictions: Path, too_long_chars: int | None = None) -> None:
    """Raise DataError in one line for verdicts on other predictions, or by another limit than `too_long_chars`.

    Imported tables tell neither, and pass; a limit of None is not compared.
    """
    facts = tables.facts(verdicts)
    if "predictions_sha" in facts and facts["predictions_sha"] != content_hash(predictions):
        raise DataError(f"{verdicts} is of earlier predictions than {predictions}; run the stage `verify` again")
    if too_long_chars is not None and facts.get("too_long_chars", too_long_chars) != too_long_chars:
        raise DataError(
            f"{verdicts} was made with metrics.too_long_chars={facts['too_long_chars']}, not {too_long_chars}; "
            "run the stage `verify` again"
        )


def difference(found: object, wanted: object, at: str = "") -> str:
    """Dotted path of the first difference; empty when there is none."""
    if not (isinstance(found, Mapping) and isinstance(wanted, Mapping)):
        return "" if found == wanted else at
    for key in sorted({*found, *wanted}):
        where = f"{at}.{key}" if at else str(key)
        if (key in found) != (key in wanted):
            return where
        if below := difference(found[key], wanted[key], where):
            return below
    return ""
