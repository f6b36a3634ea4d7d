"""Validation of a parquet file: whether training can read it; every fault names its row and column.

Shared by ``validate`` and by the check that runs when training starts, so it must stay quick on files of any size: all
text is read, of the images only a bounded sample. It knows the file format alone, neither veRL nor the trainer.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.images.encode import BrokenImageError, encode
from data_prep.pipeline.prompts import IMAGE
from speciarl.answer import is_abstention, normalise
from speciarl.errors import DataPrepError
from speciarl.taxonomy import Taxonomy, TaxonomyError, UnknownConceptError
from speciarl.verdict import Pair

TAXONOMY = "taxonomy.json"


def check(
    files: Sequence[Path], image_key: str, images: int | None, taxonomy: Path | None
) -> Iterator[tuple[Path, list[Fault]]]:
    """Pairs of each file and its faults, those between the files included.

    Args:
        images: how many images of a file to decode; None for all.
        taxonomy: must know every ground truth; None for the taxonomy.json beside a file, if there is one.

    Raises DataPrepError when the taxonomy itself cannot be read.
    """
    owners: dict[str, tuple[Path, int]] = {}
    for file in files:
        found = list(faults(file, image_key, images))
        if not found:
            found += _unknown_labels(file, taxonomy or file.with_name(TAXONOMY), required=taxonomy is not None)
            for sample_id, row in sample_ids(file).items():
                other, other_row = owners.setdefault(sample_id, (file, row))
                if other != file:
                    message = f"is {sample_id!r} as in {other}, row {other_row}: tested on what was trained on"
                    found.append(Fault(row, "extra_info.sample_id", message))
        yield file, found


def _unknown_labels(file: Path, taxonomy: Path, required: bool) -> Iterator[Fault]:
    if not taxonomy.is_file():
        if required:
            raise DataPrepError(f"{taxonomy}: no such file")
        return
    try:
        tree = Taxonomy.load(taxonomy)
    except (OSError, TaxonomyError) as error:
        raise DataPrepError(f"{taxonomy}: {error}; build the dataset again") from error
    for truth, row in ground_truths(file).items():
        try:
            tree.judge(Pair(truth, truth))
        except UnknownConceptError:
            yield Fault(row, "reward_model.ground_truth", f"{truth!r} is not in {taxonomy}")


TEXT_COLUMNS = ("prompt", "data_source", "reward_model", "extra_info")
"""Columns that training reads beside the image column."""
UNASKED = "emoji/"
"""Data source of the laptop's world, whose small policy knows the tags without being asked."""
IMAGE_KEY = "images"
SAMPLED_IMAGES = 32
_BATCH_ROWS = 1024
_GROUPS = 8
_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. `row` is None for the whole file, `column` empty for no column in particular."""

    row: int | None
    column: str
    message: str

    def __str__(self) -> str:
        where = "" if self.row is None else f"row {self.row}: "
        return f"{where}{self.column} {self.message}" if self.column else f"{where}{self.message}"


def faults(path: Path, image_key: str = IMAGE_KEY, images: int | None = SAMPLED_IMAGES) -> Iterator[Fault]:
    """Faults of a file, in the order in which reading finds them.

    Args:
        path: the parquet file.
        image_key: name of the image column (``data.image_key``).
        images: how many images to decode, spread over the file; None for all.
    """
    import pyarrow as pa
    from pyarrow import parquet

    if not path.is_file():
        yield Fault(None, "", "does not exist")
        return
    try:
        # Without pre-buffering and with a small buffer, pages of images are read only as far as they are asked for.
        file = parquet.ParquetFile(path, pre_buffer=False, buffer_size=_READ_BYTES)
    except (OSError, pa.ArrowInvalid) as error:
        yield Fault(None, "", f"is no parquet file ({_line(error)})")
        return
    with file:
        shape = list(_schema_faults(file.schema_arrow, image_key))
        if not shape and file.metadata.num_rows == 0:
            shape = [Fault(None, "", "holds no rows")]
        yield from shape
        if shape:
            return
        try:
            yield from _text_faults(file, image_key)
            yield from _image_faults(file, image_key, images)
        except (OSError, pa.ArrowException) as error:
            yield Fault(None, "", f"cannot be read to the end ({_line(error)})")


def ground_truths(path: Path) -> dict[str, int]:
    """Ground truths of a file without faults, each with the first row that has it."""
    return _first_rows(path, "reward_model", "ground_truth")


def sample_ids(path: Path) -> dict[str, int]:
    """Sample ids of a file without faults, each with its row; empty when the file has none."""
    return _first_rows(path, "extra_info", "sample_id")


def _first_rows(path: Path, column: str, field: str) -> dict[str, int]:
    from pyarrow import parquet

    cells = parquet.read_table(path, columns=[column])[column].to_pylist()
    first: dict[str, int] = {}
    for row, cell in enumerate(cells):
        if isinstance(cell, Mapping) and isinstance(value := cell.get(field), str):
            first.setdefault(value, row)
    return first


def _schema_faults(schema: Any, image_key: str) -> Iterator[Fault]:
    missing = [name for name in (*TEXT_COLUMNS, image_key) if name not in schema.names]
    if missing:
        yield Fault(None, "", f"lacks the column {', '.join(missing)} (it has {', '.join(schema.names)})")
        return
    for column, wanted, fits in (
        ("data_source", "text", _is_text(schema.field("data_source").type)),
        ("prompt", "a list of {role, content}", _is_list_of(schema.field("prompt").type, "role", "content")),
        ("reward_model", "{style, ground_truth}", _has(schema.field("reward_model").type, "ground_truth")),
        ("extra_info", "{index, split, sample_id, …}", _has(schema.field("extra_info").type)),
        (image_key, "a list of {bytes, path}", _is_list_of(schema.field(image_key).type, "bytes")),
    ):
        if not fits:
            yield Fault(None, column, f"has the type {schema.field(column).type}; it must be {wanted}")


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _has(kind: Any, *names: str) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_struct(kind)) and all(kind.get_field_index(name) >= 0 for name in names)


def _is_list_of(kind: Any, *names: str) -> bool:
    import pyarrow as pa

    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return bool(is_list) and _has(kind.value_type, *names)


def _text_faults(file: Any, image_key: str) -> Iterator[Fault]:
    """Faults of all columns but the images' bytes."""
    leaves = [file.schema.column(index).path for index in range(len(file.schema.names))]
    of_images = [leaf for leaf in leaves if leaf.split(".")[0] == image_key and not leaf.endswith(".bytes")]
    # One other field of the images is enough to count a row's images without reading their bytes.
    columns = [leaf for leaf in leaves if leaf.split(".")[0] in TEXT_COLUMNS] + of_images[:1]
    seen: dict[str, int] = {}
    row = 0
    for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=columns, use_threads=False):
        for cells in batch.to_pylist():
            count = len(cells[image_key] or ()) if of_images else None
            yield from _row_faults(row, cells, image_key, count, seen)
            row += 1


def _row_faults(
    row: int, cells: Mapping[str, Any], image_key: str, images: int | None, seen: dict[str, int]
) -> Iterator[Fault]:
    truth = (cells["reward_model"] or {}).get("ground_truth")
    if not isinstance(truth, str) or not truth.strip():
        yield Fault(row, "reward_model.ground_truth", "is missing or empty")
    elif not _has_content(truth):
        yield Fault(row, "reward_model.ground_truth", f"is {truth!r}, which holds no letter or digit to compare with")
    elif is_abstention(truth):
        yield Fault(row, "reward_model.ground_truth", f"is {truth!r}: a model that declines to answer would be right")
    if not (cells["data_source"] or "").strip():
        yield Fault(row, "data_source", "is missing or empty; metrics are reported by it")
    yield from _prompt_faults(row, cells["prompt"], image_key, images)
    if not _asks_for_answer(cells["prompt"]) and not (cells["data_source"] or "").startswith(UNASKED):
        yield Fault(row, "prompt", "does not ask for the answer inside <answer> </answer>, where it is looked for")
    extra = cells["extra_info"] or {}
    sample_id = extra.get("sample_id")
    if sample_id is not None:
        first = seen.setdefault(str(sample_id), row)
        if first != row:
            yield Fault(row, "extra_info.sample_id", f"is {sample_id!r} as in row {first}; ids must differ")
    label_path = extra.get("label_path")
    if label_path and truth and label_path[-1] != truth:
        yield Fault(row, "extra_info.label_path", f"ends with {label_path[-1]!r}, the ground truth is {truth!r}")


@functools.lru_cache(maxsize=4096)
def _has_content(label: str) -> bool:
    return bool(normalise(label))


def _asks_for_answer(prompt: Any) -> bool:
    """Whether a message asks for an answer between the tags; also for a prompt that has another fault."""
    texts = [message["content"] for message in prompt or () if message and isinstance(message["content"], str)]
    return not texts or any("<answer>" in text and "</answer>" in text for text in texts)


def _prompt_faults(row: int, prompt: Any, image_key: str, images: int | None) -> Iterator[Fault]:
    if not prompt:
        yield Fault(row, "prompt", "is missing or empty")
        return
    for number, message in enumerate(prompt):
        if not (message and message["role"] and isinstance(message["content"], str) and message["content"].strip()):
            yield Fault(row, f"prompt[{number}]", "has no role or no content")
            return
    places = sum(message["content"].count(IMAGE) for message in prompt)
    if images is not None and places != images:
        yield Fault(row, "prompt", f"has {places} x {IMAGE}, but {image_key} holds {images} images")


def _image_faults(file: Any, image_key: str, images: int | None) -> Iterator[Fault]:
    groups = file.num_row_groups
    chosen = list(range(groups)) if images is None else sorted({groups * part // _GROUPS for part in range(_GROUPS)})
    per_group = None if images is None else max(1, images // len(chosen))
    starts = _starts(file)
    leaves = [file.schema.column(index).path for index in range(len(file.schema.names))]
    columns = [leaf for leaf in leaves if leaf.split(".")[0] == image_key]
    for group in chosen:
        row, end = starts[group], starts[group + 1]
        if per_group is not None:
            end = min(end, row + per_group)
        # Few rows at a time: a batch of whole photographs would be hundreds of megabytes.
        for batch in file.iter_batches(batch_size=4, row_groups=[group], columns=columns, use_threads=False):
            for cell in batch.column(0).to_pylist():
                if row < end:
                    yield from _cell_faults(row, image_key, cell)
                row += 1
            if row >= end:
                break


def _starts(file: Any) -> list[int]:
    """First row of every row group, and the number of rows at the end."""
    starts = [0]
    for group in range(file.num_row_groups):
        starts.append(starts[-1] + file.metadata.row_group(group).num_rows)
    return starts


def _cell_faults(row: int, image_key: str, cell: Sequence[Mapping[str, Any] | None] | None) -> Iterator[Fault]:
    if not cell:
        yield Fault(row, image_key, "holds no image")
    for number, image in enumerate(cell or ()):
        column = f"{image_key}[{number}].bytes"
        data = (image or {}).get("bytes")
        if not data:
            yield Fault(row, column, "is empty; training reads the bytes and never opens the path")
            continue
        try:
            shown = encode(data)
        except BrokenImageError as error:
            yield Fault(row, column, f"cannot be used: {error}")
            continue
        if shown.change is not None and not shown.change.startswith("format"):
            yield Fault(row, column, f"is not plain upright RGB ({shown.change}); the model would see something else")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
