"""What a run logged to Weights & Biases without a connection."""

import json
import struct
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

BLOCK_BYTES, HEADER_BYTES = 32768, 7
PIECE = struct.Struct("<IHB")
ENDS = (1, 4)
"""Kinds of pieces that end a record: all of it, or the last of several."""


def wandb_history(folder: Path, prefixes: tuple[str, ...]) -> dict[int, dict[str, float]]:
    """The numbers whose names begin with one of the prefixes, by step."""
    (log,) = (folder / "wandb").glob("offline-run-*/run-*.wandb")
    history: dict[int, dict[str, float]] = defaultdict(dict)
    for record in _records(log):
        items = [item for item in record.history.item if len(item.nested_key) < 2]  # deeper: parts of a page
        row: dict[str, Any] = {"".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}
        for name, value in row.items():
            if name.startswith(prefixes) and isinstance(value, int | float):
                history[int(row["_step"])][name] = value
    return dict(history)


def _records(log: Path) -> Iterator[Record]:
    """The file is a log of LevelDB's format behind a header: blocks of pieces, each with checksum, length and kind."""
    content, place, whole = log.read_bytes(), HEADER_BYTES, b""
    while place + PIECE.size <= len(content):
        left = BLOCK_BYTES - place % BLOCK_BYTES
        if left < PIECE.size:  # too little for a piece: filled up
            place += left
            continue
        _, length, kind = PIECE.unpack_from(content, place)
        place += PIECE.size
        whole += content[place : place + length]
        place += length
        if kind in ENDS:
            yield Record.FromString(whole)
            whole = b""
