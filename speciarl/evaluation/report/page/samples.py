"""Samples that a page shows whole: what every run answered, and what every judge said of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from speciarl.evaluation.matrix import Asked
from speciarl.evaluation.report.page.embed import as_json

ANSWER_CHARS = 200
TEXT_CHARS = (2000, 1000, 500, 250, 120, 0)
"""Lengths to which responses are cut: the first with which all samples fit."""
_COLUMNS = ["sample_id", "index", "label_path", "failure", "text", "answer", "tokens", "finish_reason"]


def answers(
    cells: Sequence[Asked], out: Path, sample_ids: Sequence[str], judges: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Of each sample its ``path`` of labels and its ``runs``: by ``MODEL/PROMPT``, its first answer and its best."""
    found: dict[str, dict[str, Any]] = {name: {"path": [], "runs": {}} for name in sample_ids}
    for asked in cells:
        if asked.predictions(out).exists():
            verdicts = _verdicts(asked, out, sample_ids, judges)
            for row in _rows(asked.predictions(out), _COLUMNS, sample_ids):
                sample = found[row["sample_id"]]
                sample["path"] = row["label_path"] or sample["path"]
                said = verdicts.get((row["sample_id"], row["index"]), {})
                kept = sample["runs"].setdefault(f"{asked.model}/{asked.prompt}", [])
                _keep(kept, {**row, "said": said}, judges)
    return found


def shortened(samples: Sequence[Mapping[str, Any]], budget: int) -> list[dict[str, Any]]:
    """Samples with texts cut so that all fit in `budget` bytes; where none can be cut further, fewer samples."""
    for limit in TEXT_CHARS:
        short = [_short(sample, limit) for sample in samples]
        sizes = [len(as_json(sample).encode()) + 1 for sample in short]
        if sum(sizes) <= budget:
            return short
    while sum(sizes) > budget:
        sizes.pop()
    return short[: len(sizes)]


def _verdicts(
    asked: Asked, out: Path, sample_ids: Sequence[str], judges: Sequence[str]
) -> dict[tuple[str, int], dict[str, tuple[int, str | None]]]:
    """Outcome and reason by each judge, of each answer."""
    found: dict[tuple[str, int], dict[str, tuple[int, str | None]]] = {}
    for judge in judges:
        path = asked.verdicts(out, judge)
        if path.exists():
            for row in _rows(path, ["sample_id", "index", "outcome", "reason"], sample_ids):
                found.setdefault((row["sample_id"], row["index"]), {})[judge] = row["outcome"], row["reason"]
    return found


def _rows(path: Path, columns: list[str], sample_ids: Sequence[str]) -> Iterable[dict[str, Any]]:
    """Rows of the samples, one row group at a time: a column of responses may not fit in memory."""
    wanted = pa.array(sample_ids, pa.string())
    file = pq.ParquetFile(path)
    for group in range(file.num_row_groups):
        mask = pc.is_in(file.read_row_group(group, ["sample_id"])["sample_id"], value_set=wanted)
        if pc.any(mask).as_py():
            yield from file.read_row_group(group, columns).filter(mask).to_pylist()


def _keep(kept: list[dict[str, Any]], answer: dict[str, Any], judges: Sequence[str]) -> None:
    """Keep the first answer, and the best where that is another: by the first judge, the earliest of equal ones."""

    def outcome(one: dict[str, Any]) -> int:
        said: tuple[int, str | None] = one["said"].get(judges[0], (-99, None)) if judges else (-99, None)
        return said[0]

    if not kept:
        kept.append(answer)
    elif outcome(answer) > outcome(kept[-1]):
        kept[1:] = [answer]


def _short(sample: Mapping[str, Any], limit: int) -> dict[str, Any]:
    runs = [[_short_answer(answer, limit) for answer in answers] for answers in sample["runs"]]
    return {**sample, "path": [_cut(name, ANSWER_CHARS)[0] for name in sample["path"]], "runs": runs}


def _short_answer(answer: Mapping[str, Any], limit: int) -> dict[str, Any]:
    """An answer as the page reads it: texts with their whole length, which tells whether they were cut."""
    return {
        "n": answer["index"],
        "answer": None if answer["answer"] is None else _cut(answer["answer"], ANSWER_CHARS),
        "text": _cut(answer["text"] or "", limit),
        "tokens": answer["tokens"],
        "end": answer["failure"] or answer["finish_reason"],
        "said": answer["said"],
    }


def _cut(text: str, limit: int) -> tuple[str, int]:
    return text[:limit], len(text)
