"""Index of all samples in columns, a few bits for each: class, source, and the outcome of every run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from speciarl.evaluation.report.outcomes import NOT_ASKED, Codes, Questions
from speciarl.evaluation.report.page.embed import as_base64, as_json, as_nibbles
from speciarl.evaluation.report.scopes import Run


@dataclass(frozen=True)
class Column:
    """Outcomes of a run on the questions of all data sets."""

    run: Run
    best: bool
    """Whether of each question's best answer, or of its first."""
    codes: Codes


def columns(everything: Sequence[Questions], runs: Sequence[Run]) -> list[Column]:
    """All columns, the first answers of all runs before the best ones."""
    found = [Column(run, False, _joined(everything, run, best=False)) for run in runs]
    for run in runs:
        if any(run in of.runs and of.runs[run].best is not of.runs[run].first for of in everything):
            found.append(Column(run, True, _joined(everything, run, best=True)))
    return found


def index(everything: Sequence[Questions], found: Sequence[Column], runs: Sequence[Run], budget: int) -> dict[str, Any]:
    """The index for the page, in at most about `budget` bytes; outcomes that do not fit are left out, the last first.

    Outcomes are four bits each, the code above `NOT_ASKED`; classes and sources are numbers of names in a list.
    """
    classes, of_class = _names([of.truths for of in everything])
    sources, of_source = _names([of.sources for of in everything])
    content: dict[str, Any] = {
        "offset": -NOT_ASKED,
        "datasets": [{"name": of.dataset, "rows": len(of)} for of in everything],
        "classes": {"names": classes, **_numbers(of_class)},
        "sources": {"names": sources, **_numbers(of_source)} if len(sources) > len(everything) else {"names": sources},
        "columns": [],
    }
    left = budget - len(as_json(content).encode())
    for column in found:
        packed = as_nibbles(column.codes, -NOT_ASKED)
        left -= len(packed)
        if left < 0:
            break
        content["columns"].append({"run": runs.index(column.run), "best": column.best, "data": packed})
    content["left_out"] = len(found) - len(content["columns"])
    return content


def _joined(everything: Sequence[Questions], run: Run, best: bool) -> Codes:
    def parts() -> Iterator[Codes]:
        for of in everything:
            judged = of.runs.get(run)
            nothing = np.full(len(of), NOT_ASKED, np.int8)
            yield nothing if judged is None else judged.best if best else judged.first

    return np.concatenate(list(parts())) if everything else np.empty(0, np.int8)


def _names(parts: Sequence[Any]) -> tuple[list[str], npt.NDArray[np.int64]]:
    """The sorted distinct texts of all parts, and the number of each text among them."""
    texts = pa.chunked_array(parts, pa.string()).fill_null("")
    names = sorted(pc.unique(texts).to_pylist())
    return names, pc.index_in(texts, value_set=pa.array(names, pa.string())).to_numpy().astype(np.int64)


def _numbers(values: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Numbers in as few bytes each as the largest needs."""
    kind = np.min_scalar_type(int(values.max(initial=0)))
    return {"bytes": kind.itemsize, "data": as_base64(values.astype(kind))}
