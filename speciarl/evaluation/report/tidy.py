"""Tidy tables of all numbers: one row per cell and metric, as CSV and parquet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from speciarl.evaluation.results import Average, Cell, Estimate, Results
from speciarl.utils.atomic_files import replacing, write_text

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


@dataclass(frozen=True)
class Number:
    """One number. Names that do not apply are empty."""

    kind: str
    """``cell``, ``average``, ``best of k`` or ``difference`` (the named run minus `against`)."""
    model: str
    prompt: str
    judge: str
    dataset: str
    group: str
    metric: str
    k: int | None
    """Of how many answers the best was taken."""
    value: float | None
    low: float | None
    high: float | None
    lower_bound: float | None
    upper_bound: float | None
    against: str = ""
    p: float | None = None
    p_holm: float | None = None
    detectable: float | None = None


SCHEMA = pa.schema(
    [
        (name, pa.int32() if name == "k" else pa.float64() if "float" in str(kind) else pa.string())
        for name, kind in Number.__annotations__.items()
    ]
)
"""Columns of ``report.parquet``."""


def numbers(results: Results) -> Iterator[Number]:
    """All numbers, in the order of the results and by name of metric."""
    for cell in results.cells:
        yield from _measured("cell", cell, cell.dataset)
        counts = {"questions": cell.questions, "answers": cell.answers, "classes": cell.classes}
        counts |= {f"unscored/{reason}": count for reason, count in cell.unscored.items()}
        counts |= {f"failed/{failure}": count for failure, count in cell.failed.items()}
        for name, count in sorted(counts.items()):
            yield _number("cell", cell, cell.dataset, name, Estimate(float(count)))
        for name, values in sorted(cell.best_of.items()):
            for k, estimate in enumerate(values, start=1):
                yield _number("best of k", cell, cell.dataset, name, estimate, k)
    for average in results.averages:
        yield from _measured("average", average, "")
    for one in results.differences:
        model, _, prompt = one.second.partition("/")
        yield Number(
            "difference", model, prompt, one.judge, one.dataset, "", one.metric, None, **asdict(one.estimate),
            against=one.first, p=one.p, p_holm=one.p_holm, detectable=one.detectable,
        )  # fmt: skip


def write_csv(results: Results, path: Path) -> None:
    """Write all numbers as CSV. A name that a spreadsheet would run as a formula gets an apostrophe before it."""
    lines = io.StringIO(newline="")
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(SCHEMA.names)
    for one in numbers(results):
        writer.writerow([_plain(value) if isinstance(value, str) else value for value in asdict(one).values()])
    write_text(path, lines.getvalue())


def write_parquet(results: Results, path: Path) -> None:
    """Write all numbers as parquet."""
    table = pa.Table.from_pylist([asdict(one) for one in numbers(results)], SCHEMA)
    with replacing(path) as draft:
        pq.write_table(table, draft)


def _measured(kind: str, of: Cell | Average, dataset: str) -> Iterator[Number]:
    for name, estimate in sorted(of.metrics.items()):
        yield _number(kind, of, dataset, name, estimate)


def _number(kind: str, of: Cell | Average, dataset: str, name: str, estimate: Estimate, k: int | None = None) -> Number:
    values: Mapping[str, Any] = asdict(estimate)
    return Number(kind, of.model, of.prompt, of.judge, dataset, of.group, name, k, **values)


def _plain(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text
