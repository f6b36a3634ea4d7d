"""Verdict log of a verifier service: the parquet parts of one run, whose groups its extra information tells."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from speciarl.category import Category
from speciarl.errors import DataError
from speciarl.evaluation.outcome import Outcome
from speciarl.evaluation.replay.rollouts import NO_ROW, QUORUM, Ints, Rollouts, in_order, text_codes
from speciarl.verdict import Source

GROUP_KEYS = ("group", "uid")
"""Keys of `extra_info` that name a pair's group; the first that is there counts."""
SESSION_KEY = "session"
"""Key of `extra_info` with the number of the rollout in its group; the order of judging where there is none."""

_COLUMNS = ["judge", "ground_truth", "prediction", "category", "margin", "probabilities", "source", "extra_info"]
_OUTCOMES: dict[str | None, int] = {category.label: int(category) for category in Category} | {
    None: int(Outcome.UNSCORED)
}
_SOURCES: dict[str | None, int] = {source.value: place for place, source in enumerate(Source)} | {None: 0}


def files_of(path: Path) -> list[Path]:
    """Parts of the run's log in the order of judging; empty where there are none.

    Raises DataError for a folder of several runs.
    """
    from speciarl.verifier_server.service.runs.rows import PartName

    def parts(folder: Path) -> list[Path]:
        names = sorted(filter(None, (PartName.parse(file.name) for file in folder.glob("part-*.parquet"))))
        return [folder / name.file for name in names]

    found = parts(path)
    runs = [folder for folder in sorted(path.iterdir()) if folder.is_dir() and parts(folder)] if not found else []
    if len(runs) > 1:
        raise DataError(f"{path} holds several runs; give one of them: {', '.join(run.name for run in runs)}")
    return parts(runs[0]) if runs else found


def read(files: list[Path], judge: str | None) -> tuple[Rollouts, bool]:
    """All pairs of a run by one judge, and whether it is the judge asked for.

    Raises DataError in one line, also where no row tells its group.
    """
    tables = [_table(file) for file in files]
    table = pa.concat_tables(tables).combine_chunks()
    file = np.repeat(np.arange(len(files)), [len(part) for part in tables])
    line = np.concatenate([np.arange(1, len(part) + 1) for part in tables])
    codes, judges = text_codes(table["judge"])
    if judge not in judges and len(judges) > 1:
        raise DataError(
            f"{files[0].parent}: several judges wrote this log; give --judge with one of them: "
            f"{', '.join(sorted(map(str, judges)))}"
        )
    rows = np.flatnonzero(codes == judges.index(judge)) if judge in judges else np.arange(len(table))
    table, file, line = table.take(rows), file[rows], line[rows]
    names, group, session, notes = _names(table, file, line, files)
    size = np.bincount(group)
    outcomes, labels = text_codes(table["category"])
    sources, told = text_codes(table["source"])
    rollouts = Rollouts(
        kind="verdict log of a verifier service",
        files=tuple(files),
        file=file,
        line=line,
        group=group,
        session=session,
        size=np.maximum(size, _longest(group, session, len(size))),
        quorum=np.minimum(QUORUM, size),
        outcome=np.array([_OUTCOMES[label] for label in labels], dtype=np.int8)[outcomes],
        source=np.array([_SOURCES[name] for name in told])[sources],
        margin=np.asarray(table["margin"].to_numpy(), dtype=np.float64),
        probabilities=_array(table, "probabilities") if table["probabilities"].null_count < len(table) else None,
        penalty=np.zeros(len(table)),
        image=pa.array(names, pa.string()).take(pa.array(group)),  # groups of one truth meet noise of their own
        step=np.zeros(len(table), dtype=np.int64),
        truth=_array(table, "ground_truth"),
        answer=_array(table, "prediction"),
        notes=(*notes, "a service is sent no response without an answer, so that none is unparsable here", NO_ROW),
    )
    return in_order(rollouts), judge is None or judge in judges


def _table(file: Path) -> pa.Table:
    try:
        return pq.read_table(file, columns=_COLUMNS)
    except (OSError, pa.ArrowException) as error:
        cause = " ".join(str(error).split())
        raise DataError(f"{file} is no part of a verdict log ({cause}); move it elsewhere") from error


def _array(table: pa.Table, name: str) -> pa.Array:
    return table[name].combine_chunks()


def _names(table: pa.Table, file: Ints, line: Ints, files: list[Path]) -> tuple[list[str], Ints, Ints, list[str]]:
    """Names of the groups, number of the group and of the session of each row, and what is to be said about them."""
    groups: dict[str, int] = {}
    counts: dict[int, int] = {}
    found, sessions, ordered = [], [], False
    for row, text in enumerate(table["extra_info"].to_pylist()):
        told = json.loads(text) if text else None
        extra = told if isinstance(told, dict) else {}
        names = [extra[key] for key in GROUP_KEYS if key in extra]
        if not names:
            raise DataError(
                f"{files[file[row]]}, row {line[row]}: its `extra_info` names no group ({' or '.join(GROUP_KEYS)}), "
                "and rewards are about groups; send one with each pair, or replay trainer.rollout_data_dir"
            )
        group = groups.setdefault(json.dumps(names[0]), len(groups))
        session = extra.get(SESSION_KEY)
        ordered |= not isinstance(session, int)
        session = session if isinstance(session, int) else counts.get(group, 0)
        counts[group] = counts.get(group, 0) + 1
        found.append(group)
        sessions.append(session)
    notes = ["rollouts without a `session` in `extra_info` stand in the order of judging"] if ordered else []
    return list(groups), np.array(found, dtype=np.int64), np.array(sessions, dtype=np.int64), notes


def _longest(group: Ints, session: Ints, groups: int) -> Ints:
    longest = np.zeros(groups, dtype=np.int64)
    np.maximum.at(longest, group, session + 1)
    return longest
