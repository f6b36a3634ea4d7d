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
    from PIL import Image, ImageOps

    if not images or not images[0].get("bytes"):
        return None
    try:
        with Image.open(io.BytesIO(images[0]["bytes"])) as image:
            image.draft("RGB", (SIDE, SIDE))
            turned = ImageOps.exif_transpose(image)
            turned.thumbnail((SIDE, SIDE))
            content = io.BytesIO()
            _on_white(turned).save(content, "JPEG", quality=QUALITY, optimize=True)
    except (OSError, ValueError, Image.DecompressionBombError):
        return None  # a broken image is a failure of predict's, told there
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"


def _on_white(image: Any) -> Any:
    from PIL import Image

    if image.mode not in ("RGBA", "LA", "PA") and "transparency" not in image.info:
        return image.convert("RGB")
    seen = image.convert("RGBA")
    white = Image.new("RGBA", seen.size, "white")
    white.alpha_composite(seen)
    return white.convert("RGB")
