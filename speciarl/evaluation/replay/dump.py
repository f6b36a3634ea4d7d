"""Rollout dump: the JSONL files of ``trainer.rollout_data_dir`` or ``trainer.validation_data_dir``, one per step."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json
from pydantic import ValidationError

from speciarl.config import RewardConfig
from speciarl.errors import DataError
from speciarl.evaluation.outcome import Outcome
from speciarl.evaluation.replay.rollouts import (
    NO_ROW,
    QUORUM,
    Floats,
    Ints,
    Logged,
    Rollouts,
    Settings,
    in_order,
    text_codes,
)
from speciarl.verdict import Source

_COLUMNS = pa.schema(
    [
        ("uid", pa.string()),  # PROMPT_SESSION_INDEX
        ("step", pa.int64()),
        ("sampled_step", pa.int64()),
        ("category", pa.string()),
        ("seen_category", pa.string()),
        ("group_reward", pa.float64()),
        ("overlong_penalty", pa.float64()),
        ("score", pa.float64()),
        ("verdict_source", pa.string()),
        ("margin", pa.float64()),
        ("probabilities", pa.string()),
        ("gts", pa.string()),
        ("answer", pa.string()),
        ("data_source", pa.string()),
        ("sample_id", pa.string()),
        ("reward_settings", pa.string()),
    ]
)
_NEEDED = ("uid", "category", "seen_category", "group_reward", "overlong_penalty", "score", "verdict_source")
_BLOCK_BYTES = 1 << 25
"""Longest line that is read, since a line may not span more than two blocks."""
_OUTCOMES = {outcome.key: int(outcome) for outcome in Outcome}
_SOURCES = {source.value: place for place, source in enumerate(Source)} | {"none": 0}


def files_of(path: Path) -> list[Path]:
    """The dump's files in the order of their steps; empty where there are none."""
    if path.suffix == ".jsonl":
        return [path]
    return sorted((file for file in path.glob("*.jsonl") if file.stem.isdigit()), key=lambda file: int(file.stem))


def read(files: Sequence[Path]) -> Rollouts:
    """All rollouts of a dump; raises DataError in one line that names file, row and remedy."""
    tables = [_table(file) for file in files]
    lengths = [len(table) for table in tables]
    table = pa.concat_tables(tables).combine_chunks()
    file = np.repeat(np.arange(len(files)), lengths)
    line = np.concatenate([np.arange(1, length + 1) for length in lengths])
    prompt, session = _names(table, files, lengths)
    which, settings, problem = _settings(table)
    group = np.unique(file * (prompt.max() + 1) + prompt, return_inverse=True)[1]
    size, quorum = _sizes(group, session, which, settings)
    seen = _codes(table, "seen_category", _OUTCOMES, files, lengths).astype(np.int8)
    absent = int(size.sum()) - len(table)
    left_out = f"{absent} rollouts failed or got no verdict and left no row; they count as unscored" if absent else ""
    return in_order(
        Rollouts(
            kind="rollout dump",
            files=tuple(files),
            file=file,
            line=line,
            group=group,
            session=session,
            size=size,
            quorum=quorum,
            outcome=_codes(table, "category", _OUTCOMES, files, lengths).astype(np.int8),
            source=_codes(table, "verdict_source", _SOURCES, files, lengths),
            margin=_floats(table, "margin"),
            probabilities=None if table["probabilities"].null_count == len(table) else _column(table, "probabilities"),
            penalty=_floats(table, "overlong_penalty"),
            # As `speciarl.training.reward_info.image_name` has it.
            image=pc.binary_join_element_wise(_column(table, "data_source"), _column(table, "sample_id"), "/"),
            step=np.asarray(pc.coalesce(table["sampled_step"], table["step"], pa.scalar(0))).astype(np.int64),
            truth=_column(table, "gts"),
            answer=_column(table, "answer"),
            logged=Logged(seen, _floats(table, "group_reward"), _floats(table, "score"), settings, which),
            notes=tuple(filter(None, (problem, left_out, NO_ROW))),
        )
    )


def _table(file: Path) -> pa.Table:
    parse = pa.json.ParseOptions(explicit_schema=_COLUMNS, unexpected_field_behavior="ignore")
    try:
        table = pa.json.read_json(file, pa.json.ReadOptions(block_size=_BLOCK_BYTES), parse).select(_COLUMNS.names)
    except (OSError, pa.ArrowException) as error:
        cause = " ".join(str(error).split())
        raise DataError(f"{file} is no whole rollout dump ({cause}); remove it, or its torn last line") from error
    for name in _NEEDED:
        if table[name].null_count:
            row = pc.index(table[name].is_null(), True).as_py() + 1
            raise DataError(f"{file}, row {row}: no `{name}`; give a folder that trainer.rollout_data_dir named")
    return table


def _column(table: pa.Table, name: str) -> pa.Array:
    column = table[name]
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)


def _floats(table: pa.Table, name: str) -> Floats:
    return np.asarray(_column(table, name).to_numpy(zero_copy_only=False), dtype=np.float64)


def _place(row: int, files: Sequence[Path], lengths: Sequence[int]) -> str:
    ends = np.cumsum(lengths)
    at = int(np.searchsorted(ends, row, side="right"))
    return f"{files[at]}, row {row - int(ends[at]) + lengths[at] + 1}"


def _codes(table: pa.Table, name: str, values: dict[str, int], files: Sequence[Path], lengths: Sequence[int]) -> Ints:
    codes, texts = text_codes(table[name])
    unknown = [place for place, text in enumerate(texts) if text not in values]
    if unknown:
        row = int(np.flatnonzero(codes == unknown[0])[0])
        raise DataError(
            f"{_place(row, files, lengths)}: `{name}` is {texts[unknown[0]]!r}, not one of {', '.join(values)}; "
            "the dump was written by another version"
        )
    return np.array([values[str(text)] for text in texts], dtype=np.int64)[codes]


def _names(table: pa.Table, files: Sequence[Path], lengths: Sequence[int]) -> tuple[Ints, Ints]:
    """Number of the prompt and of the session of each row, from veRL's keys."""
    parts = pc.split_pattern(table["uid"], "_", max_splits=2, reverse=True)
    whole = pc.equal(pc.list_value_length(parts), 3)
    if pc.all(whole).as_py():
        number = pc.list_element(parts, 1)
        whole = pc.and_(pc.utf8_is_digit(number), pc.less_equal(pc.utf8_length(number), 9))
    if not pc.all(whole).as_py():
        row = pc.index(whole, False).as_py()
        raise DataError(
            f"{_place(row, files, lengths)}: uid {table['uid'][row].as_py()!r} is not PROMPT_SESSION_INDEX, by which "
            "groups are told; give a folder that trainer.rollout_data_dir named"
        )
    prompt, _ = text_codes(pc.list_element(parts, 0))
    return prompt, np.asarray(pc.cast(number, pa.int64()))


def _settings(table: pa.Table) -> tuple[Ints, tuple[Settings, ...], str]:
    """Which settings each row has, all settings, and what is wrong with them."""
    codes, texts = text_codes(table["reward_settings"])
    kinds, which, problem = [], np.full(len(texts), -1), ""
    for place, text in enumerate(texts):
        try:
            plain = json.loads(text or "{}")
            rollouts = int(plain.pop("rollouts"))
            kinds.append(Settings(RewardConfig.model_validate(plain), rollouts))
            which[place] = len(kinds) - 1
        except (KeyError, ValidationError, ValueError):
            problem = "rows do not tell what their rewards were computed with (an older dump): they are not checked"
    return which[codes], tuple(kinds), problem


def _sizes(group: Ints, session: Ints, which: Ints, settings: Sequence[Settings]) -> tuple[Ints, Ints]:
    """Size and quorum of each group, as training has them."""
    largest = int(session.max(initial=-1)) + 1
    size_of = np.array([kind.rollouts for kind in settings] + [largest])  # the last one is found by index -1
    quorum_of = np.array([kind.reward.quorum for kind in settings] + [QUORUM])
    groups = int(group.max(initial=-1)) + 1
    size, quorum = np.zeros(groups, dtype=np.int64), np.zeros(groups, dtype=np.int64)
    np.maximum.at(size, group, np.maximum(size_of[which], session + 1))
    np.maximum.at(quorum, group, quorum_of[which])
    return size, np.minimum(quorum, size)
