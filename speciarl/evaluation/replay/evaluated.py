"""Evaluation output as a log: a judge's verdict tables, where the answers to one question are a group."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from speciarl.errors import DataError
from speciarl.evaluation import tables
from speciarl.evaluation.outcome import Outcome
from speciarl.evaluation.replay.rollouts import QUORUM, Rollouts, in_order, text_codes
from speciarl.evaluation.verify.standing import refuse_stale
from speciarl.verdict import Source

_FOLDER = "verdicts"
_LIVE = tuple(Source).index(Source.LIVE)


def files_of(path: Path, judge: str | None) -> list[Path]:
    """Verdict tables of one judge: of a whole evaluation or its ``verdicts``, or of a folder or file below that.

    Empty where there are none. Raises DataError where there are several judges and none is chosen.
    """
    folder = path / _FOLDER
    if path.resolve().name == _FOLDER and not folder.is_dir():
        folder = path.resolve()
    if not folder.is_dir():
        return sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    judges = sorted(one.name for one in folder.iterdir() if one.is_dir())
    if judge not in judges and len(judges) > 1:
        raise DataError(f"{path} has verdicts of several judges; give --judge with one of them: {', '.join(judges)}")
    chosen = judge if judge in judges else judges[0] if judges else ""
    return sorted((folder / chosen).rglob("*.parquet"))


def read(files: list[Path], judge: str | None) -> tuple[Rollouts, bool]:
    """All answers of an evaluation by one judge, and whether it is the judge asked for.

    Raises DataError in one line that names the file.
    """
    parts = [_table(file) for file in files]
    lengths = [len(part) for part in parts]
    table = pa.concat_tables(parts).combine_chunks()
    file = np.repeat(np.arange(len(files)), lengths)
    judges, cells = zip(*map(_cell, files), strict=True)
    sample, names = text_codes(table["sample_id"])
    group = np.unique(file * (len(names) + 1) + sample, return_inverse=True)[1]
    size = np.bincount(group)
    rollouts = Rollouts(
        kind="evaluation",
        files=tuple(files),
        file=file,
        line=np.concatenate([np.arange(1, length + 1) for length in lengths]),
        group=group,
        session=np.asarray(table["index"]).astype(np.int64),
        size=size,
        quorum=np.minimum(QUORUM, size),
        outcome=np.asarray(table["outcome"]).astype(np.int8),
        source=np.full(len(table), _LIVE),
        margin=np.asarray(table["margin"].to_numpy(), dtype=np.float64),
        probabilities=(
            None if table["probabilities"].null_count == len(table) else table["probabilities"].combine_chunks()
        ),
        penalty=np.zeros(len(table)),
        # Without the model, so that all models meet the same noise.
        image=pa.array(
            [f"{cells[at][1]}/{names[one]}" for at, one in zip(file.tolist(), sample.tolist(), strict=True)]
        ),
        step=np.zeros(len(table), dtype=np.int64),
        truth=table["ground_truth"].combine_chunks(),
        answer=table["answer"].combine_chunks(),
        notes=("several models or data sets are replayed as one; give a folder below for one",)
        if len(set(cells)) > 1
        else (),
    )
    return in_order(rollouts), judge is None or judge in judges


def _root(file: Path) -> Path:
    """The evaluation's folder of a verdict table; raises DataError for a table elsewhere."""
    for folder in file.parents:
        if folder.name == _FOLDER:
            return folder.parent
    raise DataError(f"{file} lies in no folder `{_FOLDER}` of an evaluation; give the evaluation's folder")


def _cell(file: Path) -> tuple[str, tuple[str, str, str]]:
    """Judge, and model, data set and prompt, of a verdict table."""
    parts = file.relative_to(_root(file) / _FOLDER).with_suffix("").parts
    if len(parts) != 4:
        raise DataError(f"{file} is no JUDGE/MODEL/DATASET/PROMPT.parquet of an evaluation; move it elsewhere")
    return parts[0], parts[1:]


def _table(file: Path) -> pa.Table:
    """Verdicts with the texts that were judged."""
    root = _root(file)
    verdicts = tables.read(file, tables.VERDICTS, ["sample_id", "index", "outcome", "margin", "probabilities"])
    values = set(map(int, Outcome))
    odd = [value for value in verdicts["outcome"].unique().to_pylist() if value not in values]
    if odd:
        raise DataError(f"{file}: outcome {odd[0]} is none of {min(values)} to {max(values)}; make it again")
    _, *cell = file.relative_to(root / _FOLDER).parts  # without the judge
    answered = root.joinpath("predictions", *cell)
    refuse_stale(file, answered)
    texts = tables.read(answered, tables.PREDICTIONS, ["sample_id", "index", "ground_truth", "answer"])
    if not texts.select(["sample_id", "index"]).equals(verdicts.select(["sample_id", "index"])):
        raise DataError(f"{file} has other rows than {answered}; run `speciarl evaluate` again")
    return verdicts.append_column("ground_truth", texts["ground_truth"]).append_column("answer", texts["answer"])
