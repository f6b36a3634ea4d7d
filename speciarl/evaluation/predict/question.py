"""Questions of a test set: the rows of its file, read a few at a time since images are large."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from speciarl.errors import ConfigError, DataError
from speciarl.evaluation.config import AS_BUILT, DatasetConfig
from speciarl.evaluation.predict.key import content_id

IMAGE = "<image>"
_ROWS = 64
"""Rows read at once."""


@dataclass(frozen=True, slots=True)
class Label:
    """What a row says of its image, without the image."""

    row: int
    """In the data file."""
    sample_id: str
    data_source: str
    ground_truth: str
    label_path: tuple[str, ...]
    """Broadest to finest name."""


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt with its images."""

    label: Label
    messages: tuple[tuple[str, str], ...]
    """Role and text; each ``<image>`` in a text stands for one image."""
    images: tuple[bytes, ...]
    """Image files, as they are in the row."""

    @property
    def prompt_id(self) -> bytes:
        """Hash of all texts."""
        return content_id(json.dumps(self.messages, ensure_ascii=False).encode())

    @property
    def images_id(self) -> bytes:
        """Hash of the image files."""
        return content_id(*self.images)


def prompt_text(prompt: str) -> str | None:
    """The text that replaces every row's prompt; None for ``as_built``. Raises DataPrepError for an unfit one."""
    if prompt == AS_BUILT:
        return None
    from data_prep.pipeline import prompts

    [loaded] = prompts.load({prompt: 1}).prompts.values()
    return loaded.text


def labels(name: str, config: DatasetConfig) -> list[Label]:
    """The rows that a test set takes of its file, in the file's order.

    Raises DataError in one line for a file that is none of `data_prep`, and ConfigError for a choice without rows.
    """
    path = Path(config.file)
    columns = ["data_source", "reward_model", "extra_info"]
    try:
        table = pq.read_table(path, columns=columns)
        rows = [_label(number, row) for number, row in enumerate(table.to_pylist())]
    except FileNotFoundError as error:
        raise DataError(f"datasets.{name}.file: {path} does not exist; build it with `speciarl data build`") from error
    except (OSError, pa.ArrowException, KeyError, TypeError) as error:
        cause = " ".join(str(error).split())
        raise DataError(f"datasets.{name}.file: {path} is no file of `speciarl data build` ({cause})") from error
    chosen = [label for label in rows if not config.data_source or label.data_source in config.data_source]
    if not chosen:
        known = ", ".join(sorted({label.data_source for label in rows})) or "no rows at all"
        raise ConfigError(f"datasets.{name}.data_source: no row of {path} has one of these; there are {known}")
    if config.max_samples is not None and config.max_samples < len(chosen):
        drawn = sorted(chosen, key=lambda label: content_id(label.sample_id.encode()))[: config.max_samples]
        chosen = sorted(drawn, key=lambda label: label.row)
    seen: set[str] = set()
    for label in chosen:
        if label.sample_id in seen:
            raise DataError(f"datasets.{name}.file: {path}: sample_id {label.sample_id!r} occurs twice; build it again")
        seen.add(label.sample_id)
    return chosen


def questions(path: Path, chosen: Sequence[Label], prompt: str | None) -> Iterator[Question]:
    """The questions of some rows, in their order, with `prompt` in place of the last user message where given."""
    ahead = deque(chosen)
    row = 0
    for batch in pq.ParquetFile(path).iter_batches(batch_size=_ROWS, columns=["prompt", "images"]):
        first, row = row, row + batch.num_rows
        taken = []
        while ahead and ahead[0].row < row:
            taken.append(ahead.popleft())
        for label, content in zip(
            taken, batch.take(pa.array([label.row - first for label in taken], pa.int64())).to_pylist(), strict=True
        ):
            yield Question(label, _messages(content["prompt"], prompt), tuple(map(_image, content["images"] or ())))


def _label(number: int, row: dict[str, Any]) -> Label:
    extra = row["extra_info"] or {}
    truth = row["reward_model"]["ground_truth"]
    return Label(
        number,
        extra.get("sample_id") or f"row/{number}",
        row["data_source"],
        truth,
        tuple(extra.get("label_path") or (truth,)),
    )


def _messages(built: Sequence[dict[str, str]], prompt: str | None) -> tuple[tuple[str, str], ...]:
    messages = [(message["role"], message["content"]) for message in built]
    if prompt is not None:
        last = max(index for index, (role, _) in enumerate(messages) if role == "user")
        messages[last] = ("user", prompt)
    return tuple(messages)


def _image(image: dict[str, Any]) -> bytes:
    """The bytes of an image; of one that is only named, those of its file. Raises DataError where it cannot be read."""
    data: bytes | None = image.get("bytes")
    if data is not None:
        return data
    try:
        return Path(image["path"]).read_bytes()
    except OSError as error:
        raise DataError(f"{image['path']}: {error.strerror}; a row of the data file names this image") from error
