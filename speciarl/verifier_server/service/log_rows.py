"""What the verdict log keeps of a pair."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

import pyarrow as pa

from speciarl.verdict import Judgement, Pair, Verdict
from speciarl.verifier_server.service.judges import Judge

SCHEMA = pa.schema(
    [
        pa.field("time", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("judge", pa.string(), nullable=False),
        pa.field("model", pa.string()),
        pa.field("revision", pa.string()),
        pa.field("prompt", pa.string()),
        pa.field("prompt_hash", pa.string()),
        pa.field("decoding", pa.string()),
        pa.field("pair_id", pa.string()),
        pa.field("ground_truth", pa.string(), nullable=False),
        pa.field("prediction", pa.string(), nullable=False),
        pa.field("category", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("detail", pa.string()),
        pa.field("margin", pa.float64()),
        pa.field("probabilities", pa.list_(pa.float64())),
        pa.field("source", pa.string()),
        pa.field("extra_info", pa.string()),
    ]
)
"""Exactly one of `category` and `reason` is null. `extra_info` is JSON text."""

COUNTED = ("judge", "category", "source", "reason")
"""Columns by whose values rows are counted."""

Row = dict[str, Any]


def make_row(
    judge: Judge, pair: Pair, judgement: Judgement, pair_id: str | None = None, extra_info: str | None = None
) -> Row:
    """The row of one pair, judged now."""
    scored = judgement if isinstance(judgement, Verdict) else None
    failed = None if isinstance(judgement, Verdict) else judgement
    return {
        "time": datetime.now(UTC),
        "judge": judge.name,
        "model": judge.config.model,
        "revision": judge.config.revision,
        "prompt": judge.prompt,
        "prompt_hash": judge.prompt_hash,
        "decoding": judge.decoding,
        "pair_id": pair_id,
        "ground_truth": pair.ground_truth,
        "prediction": pair.prediction,
        "category": scored.category.label if scored else None,
        "reason": failed.reason.value if failed else None,
        "detail": failed.detail if failed else None,
        "margin": scored.margin if scored else None,
        "probabilities": list(scored.probabilities) if scored and scored.probabilities else None,
        "source": scored.source.value if scored else None,
        "extra_info": extra_info,
    }


@dataclass
class Counts:
    """What a run's rows add up to."""

    pairs: int = 0
    first: datetime | None = None
    last: datetime | None = None
    by: dict[str, Counter[str]] = field(default_factory=lambda: {name: Counter() for name in COUNTED})
    """For each of COUNTED, rows by value; null is not counted."""

    def add_rows(self, rows: Iterable[Row]) -> None:
        """Count rows."""
        for row in rows:
            self.pairs += 1
            self._stretch(row["time"], row["time"])
            for name in COUNTED:
                if row[name] is not None:
                    self.by[name][row[name]] += 1

    def add(self, other: "Counts") -> None:
        """Count what another one counted."""
        self.pairs += other.pairs
        if other.first is not None and other.last is not None:
            self._stretch(other.first, other.last)
        for name in COUNTED:
            self.by[name].update(other.by[name])

    def as_json(self) -> dict[str, Any]:
        """Plain data for `from_json`."""
        times = {"first": self.first and self.first.isoformat(), "last": self.last and self.last.isoformat()}
        return {"pairs": self.pairs, **times, "by": {name: dict(counter) for name, counter in self.by.items()}}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The counts that `as_json` wrote; raises KeyError, TypeError or ValueError for anything else."""
        first, last = (None if data[key] is None else datetime.fromisoformat(data[key]) for key in ("first", "last"))
        return cls(int(data["pairs"]), first, last, {name: Counter(data["by"][name]) for name in COUNTED})

    def _stretch(self, first: datetime, last: datetime) -> None:
        self.first = first if self.first is None else min(self.first, first)
        self.last = last if self.last is None else max(self.last, last)
