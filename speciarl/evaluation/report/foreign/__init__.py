"""Others' files of predictions and verdicts, read into the tables of an evaluation so that metrics and report work."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from speciarl.errors import DataError
from speciarl.evaluation import tables
from speciarl.evaluation.config import EvaluationConfig, parse
from speciarl.evaluation.matrix import SETTINGS, Asked
from speciarl.evaluation.report.foreign import lmms_owc, release
from speciarl.evaluation.report.foreign.answered import Answered, Names, as_name, complete, facts, verdicts
from speciarl.utils.atomic_files import write_text

Reader = Callable[[Path], Iterator[Answered]]
FORMATS: dict[str, Reader] = {"release": release.read, "lmms-owc": lmms_owc.read}
"""Readers by name: the NDJSON of the paper's release, and the JSONL of lmms-owc."""


def convert(files: Sequence[Path], kind: str, out: Path) -> EvaluationConfig:
    """Write the tables of an evaluation below `out` from files of one kind, and its settings to evaluation.yaml.

    Answers that should be there but are not become failures, also to samples of a data set that only other models or
    prompts have. A file with verdicts makes a table of them as well; else the verify stage has to.

    Raises DataError naming file and line when a record cannot be read, and in one line when a model lacks a data set,
    prompt or judge that another has, or two names would become one.
    """
    if kind not in FORMATS:
        raise DataError(f"{kind!r} is no format; choose one of {', '.join(FORMATS)}")
    cells: dict[Asked, list[Answered]] = {}
    names = Names()
    for file in files:
        for one in FORMATS[kind](file):
            asked = Asked(names("model", one.model), names("data set", one.data_source), names("prompt", one.prompt))
            if one.judge:
                names("judge", one.judge)
            cells.setdefault(asked, []).append(one)
    if not cells:
        raise DataError(f"no answers in {', '.join(map(str, files))}; give files of the format {kind}")
    judges = {as_name(one.judge) for answers in cells.values() for one in answers if one.judge}
    _refuse_gaps(cells, judges)
    for asked, answers in cells.items():
        others = [one for other, of in cells.items() if other.dataset == asked.dataset for one in of]
        _write(asked, complete(answers, others), out)
    settings: dict[str, Any] = {
        "out": str(out),
        "models": {asked.model: {"path": asked.model} for asked in cells},
        "datasets": {asked.dataset: {"file": str(files[0])} for asked in cells},
        "prompts": list(dict.fromkeys(asked.prompt for asked in cells)),
        "judges": {judge: {"use": judge} for judge in sorted(judges) or ["none"]},
    }
    write_text(out / SETTINGS, yaml.safe_dump(settings, allow_unicode=True))
    return parse(settings)


def _refuse_gaps(cells: Mapping[Asked, Sequence[Answered]], judges: set[str]) -> None:
    """Raise DataError naming the first model, data set and prompt, and judge, that there should be but is not."""
    parts = ({getattr(asked, part): None for asked in cells} for part in ("model", "dataset", "prompt"))
    for asked in itertools.starmap(Asked, itertools.product(*parts)):
        found = {as_name(one.judge) for one in cells.get(asked, ()) if one.judge}
        for gap in ["answers"] * (asked not in cells) + [f"verdicts of {judge}" for judge in sorted(judges - found)]:
            raise DataError(f"no {gap} for {asked}, as for others; give all files, or import into several folders")


def _write(asked: Asked, answers: Sequence[Answered], out: Path) -> None:
    tables.write(asked.predictions(out), tables.PREDICTIONS, (one.prediction() for one in answers), facts(answers))
    for judge in sorted({one.judge for one in answers if one.judge}):
        rows = verdicts(answers, judge)
        tables.write(asked.verdicts(out, as_name(judge)), tables.VERDICTS, rows, {"judge": {"name": judge}})
