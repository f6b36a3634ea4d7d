"""Inspection of a parquet file: counts of what is in it, and a contact sheet."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_prep.checks.validate import IMAGE_KEY, faults
from data_prep.pipeline.rows import metadata_of
from speciarl.errors import DataPrepError

_BATCH_ROWS = 32
_TILE_PX = 160
_TEXT_PX = 28
_COLUMNS = 6
_LABEL_LETTERS = 26


@dataclass(slots=True)
class Contents:
    """Counts of one file. Those of images cover all `images` of its `rows`."""

    file: Path
    rows: int = 0
    file_bytes: int = 0
    sources: Counter[str] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)
    labels: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Rows by data source and label."""
    depths: Counter[int] = field(default_factory=Counter)
    """Rows by length of the label path."""
    prompts: Counter[str] = field(default_factory=Counter)
    """Rows by prompt id, or by the text where there is none."""
    texts: dict[str, str] = field(default_factory=dict)
    """Prompt id -> text."""
    images: int = 0
    image_bytes: int = 0
    formats: Counter[str] = field(default_factory=Counter)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    """Width and height in pixels."""
    metadata: dict[str, str] = field(default_factory=dict)
    sheet: list[tuple[str, bytes]] = field(default_factory=list)
    """Label and image file of the pictures for the contact sheet, spread over the rows."""


def read(path: Path, pictures: int, progress: Callable[[int], object] = lambda _: None) -> Contents:
    """The counts of a whole file, read a batch at a time; `progress` is called with the rows of each batch.

    Args:
        pictures: how many images to keep for the contact sheet.

    Raises DataPrepError for a file that training could not read either.
    """
    from pyarrow import parquet

    for fault in faults(path, images=1):
        raise DataPrepError(f"{path}: {fault}; `python -m data_prep validate {path}` lists all faults")
    with parquet.ParquetFile(path, pre_buffer=False) as file:
        contents = Contents(path, file.metadata.num_rows, path.stat().st_size)
        contents.metadata = metadata_of(file.schema_arrow)
        wanted = set(_spread(contents.rows, pictures))
        for index, cells in enumerate(_rows(file, progress)):
            try:
                _count(contents, cells, index in wanted)
            except OSError as error:
                remedy = f"`python -m data_prep validate --all-images {path}` lists all such"
                raise DataPrepError(f"{path}, row {index}: an image cannot be opened; {remedy}") from error
    return contents


def _rows(file: Any, progress: Callable[[int], object]) -> Iterator[dict[str, Any]]:
    for batch in file.iter_batches(batch_size=_BATCH_ROWS, use_threads=False):
        yield from batch.to_pylist()
        progress(batch.num_rows)


def _spread(rows: int, pictures: int) -> list[int]:
    """Row numbers at equal distances, so that a file in class order shows many classes."""
    return (
        [rows * number // pictures for number in range(min(pictures, rows))] if pictures < rows else list(range(rows))
    )


def _count(contents: Contents, cells: dict[str, Any], for_sheet: bool) -> None:
    from PIL import Image

    extra = cells["extra_info"] or {}
    truth = cells["reward_model"]["ground_truth"]
    contents.sources[cells["data_source"]] += 1
    contents.splits[str(extra.get("split") or "-")] += 1
    contents.labels[cells["data_source"], truth] += 1
    contents.depths[len(extra.get("label_path") or [truth])] += 1
    text = cells["prompt"][-1]["content"]
    prompt = str(extra.get("prompt_id") or text)
    contents.prompts[prompt] += 1
    contents.texts.setdefault(prompt, text)
    for image in cells[IMAGE_KEY]:
        with Image.open(io.BytesIO(image["bytes"])) as shown:  # the header alone
            contents.images += 1
            contents.image_bytes += len(image["bytes"])
            contents.formats[str(shown.format)] += 1
            contents.sizes.append(shown.size)
    if for_sheet:
        contents.sheet.append((truth, cells[IMAGE_KEY][0]["bytes"]))


def size_line(sizes: Sequence[tuple[int, int]]) -> str:
    """Smallest, median and largest image by pixels."""
    ordered = sorted(sizes, key=lambda size: (size[0] * size[1], size))
    shown = [ordered[0], ordered[len(ordered) // 2], ordered[-1]]
    return " / ".join(f"{width} x {height}" for width, height in shown)


def contact_sheet(pictures: Sequence[tuple[str, bytes]]) -> bytes:
    """A JPEG with the pictures in rows of six, each over its label."""
    from PIL import Image, ImageDraw, ImageFont, ImageOps

    lines = -(-len(pictures) // _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * _TILE_PX, lines * (_TILE_PX + _TEXT_PX)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=11)
    for number, (label, data) in enumerate(pictures):
        left, top = number % _COLUMNS * _TILE_PX, number // _COLUMNS * (_TILE_PX + _TEXT_PX)
        with Image.open(io.BytesIO(data)) as picture:
            tile = ImageOps.contain(picture.convert("RGB"), (_TILE_PX - 8, _TILE_PX - 8))
        sheet.paste(tile, (left + (_TILE_PX - tile.width) // 2, top + (_TILE_PX - tile.height) // 2))
        text = label if len(label) <= _LABEL_LETTERS else label[: _LABEL_LETTERS - 1] + "…"
        pen.text((left + 6, top + _TILE_PX + 4), text, fill="black", font=font)
    out = io.BytesIO()
    sheet.save(out, "JPEG", quality=88)
    return out.getvalue()
