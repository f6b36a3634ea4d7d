"""Parquet writer: writes rows to a file, a row group at a time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_IMAGE_COLUMNS = ("images.list.element.bytes", "images.list.element.path")


class ParquetRows:
    """Writer of row groups of about `group_bytes` of images each, so that memory does not grow with the file."""

    def __init__(self, file: Path, schema: Any, group_bytes: int) -> None:
        from pyarrow import parquet

        leaves = _leaves(schema)
        self._schema = schema
        self._group_bytes = group_bytes
        self._rows: list[Mapping[str, Any]] = []
        self._held = 0
        # Image files do not get smaller, and dictionaries or minima of them would only cost.
        text = [leaf for leaf in leaves if leaf not in _IMAGE_COLUMNS]
        self._writer = parquet.ParquetWriter(
            file,
            schema,
            compression={leaf: "zstd" if leaf in text else "none" for leaf in leaves},
            use_dictionary=text,
            write_statistics=text,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:  # after an error the file is thrown away
            self._flush()
        self._writer.close()

    def write(self, row: Mapping[str, Any]) -> None:
        """Add a row; writes a row group when enough are buffered. Raises OSError when the disk is full."""
        self._rows.append(row)
        self._held += sum(len(image["bytes"]) for image in row["images"])
        if self._held >= self._group_bytes:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._rows:
            self._writer.write_table(
                pa.Table.from_pylist(self._rows, schema=self._schema), row_group_size=len(self._rows)
            )
        self._rows, self._held = [], 0


def _leaves(schema: Any) -> list[str]:
    """Dotted paths of a schema's columns, as parquet names them."""
    import pyarrow as pa

    def walk(path: str, kind: Any) -> list[str]:
        if pa.types.is_struct(kind):
            return [leaf for child in kind for leaf in walk(f"{path}.{child.name}", child.type)]
        if pa.types.is_list(kind):
            return walk(f"{path}.list.element", kind.value_type)
        return [path]

    return [leaf for field in schema for leaf in walk(field.name, field.type)]
