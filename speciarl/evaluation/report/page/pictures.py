"""Small pictures of samples, read from the data files."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

SIDE = 88
"""Longest side in pixels."""
QUALITY = 70


def thumbnails(data_file: Path, sample_ids: Iterable[str]) -> dict[str, str]:
    """JPEG pictures as data URIs, by sample; of those whose image the file holds and that can be opened."""
    try:
        return dict(_read(data_file, set(sample_ids)))
    except (OSError, pa.ArrowException, KeyError):
        return {}  # a report can be had without the data; the page says how many pictures there are


def _read(data_file: Path, wanted: set[str]) -> Iterator[tuple[str, str]]:
    file = pq.ParquetFile(data_file)
    for group in range(file.num_row_groups):
        names = file.read_row_group(group, ["extra_info.sample_id"])["extra_info"].to_pylist()
        rows = [row for row, info in enumerate(names) if info and info["sample_id"] in wanted]
        if rows:  # images of one group at a time: a file of images may not fit in memory
            images = file.read_row_group(group, ["images"])["images"].take(rows).to_pylist()
            for row, image in zip(rows, images, strict=True):
                if picture := _thumbnail(image):
                    yield names[row]["sample_id"], picture


def _thumbnail(images: list[dict[str, Any]] | None) -> str | None:
    from data_prep.images.encode import BrokenImageError, upright

    if not images or not images[0].get("bytes"):
        return None
    try:
        image = upright(images[0]["bytes"])
    except BrokenImageError:
        return None  # a failure of predict's, told there
    image.thumbnail((SIDE, SIDE))
    content = io.BytesIO()
    image.save(content, "JPEG", quality=QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"
