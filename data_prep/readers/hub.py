"""Hugging Face datasets with an image and a label column, from the Hub or from a directory."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.readers.base import About, Picture, Sample
from data_prep.readers.class_names import is_number, named
from data_prep.readers.parsing import readable, refuse_no_path
from speciarl.errors import DataPrepError


@dataclass(frozen=True)
class Hub:
    """Reader of a dataset through the library `datasets`; images stay in their encoded form.

    The root is a directory that `load_dataset` understands (parquet files, for example a clone of a dataset's
    repository) or that `save_to_disk` wrote. With `repo` the dataset comes from the Hub into the library's own cache.
    """

    name: str = "hub"
    """Name of the dataset in ids and in `data_source`."""
    repo: str = ""
    """A dataset's name on the Hub, such as `owner/name`; the root is then not looked at."""
    revision: str | None = None
    """Commit, tag or branch on the Hub: name a commit to get the same rows for good."""
    subset: str | None = None
    """The dataset's configuration, where it has several."""
    image_column: str = "image"
    label_column: str = "label"
    """Text, or a ClassLabel."""
    parent_columns: tuple[str, ...] = ()
    """Columns with the names above the label, broadest first."""
    verbatim: bool = False
    """Take the names of a ClassLabel just as they are, numbers too, instead of dropping numbering and underscores."""

    @property
    def about(self) -> About:
        return About(
            name=self.name,
            title=self.repo or "Hugging Face dataset",
            version=self.revision or "",
            licence="see the dataset's card",
            homepage=f"https://huggingface.co/datasets/{self.repo}" if self.repo else "",
            archives=(),
            splits=(),
            published_counts={},
            published_classes=None,
            levels=(*self.parent_columns, self.label_column),
        )

    def samples(self, root: Path, split: str) -> Iterator[Sample]:
        from datasets import ClassLabel, Image
        from datasets.exceptions import DatasetsError

        source = self.repo or str(root)
        data = self._load(root, split)
        columns = (self.image_column, *self.parent_columns, self.label_column)
        features = dict(data.features or {})
        for column in columns if features else ():
            if column not in features:
                raise DataPrepError(f"{source}: there is no column '{column}', only {', '.join(features)}")
        if isinstance(features.get(self.image_column), Image):
            # The library would decode each image otherwise, and its original bytes would be lost.
            data = data.cast_column(self.image_column, Image(decode=False))
        names = {
            key: self._names(kind.names, root)
            for key, kind in features.items()
            if isinstance(kind, ClassLabel) and key in columns
        }
        number = 0
        rows = _rows(data)
        del data  # see `_rows`: who else holds it keeps its threads alive
        with contextlib.closing(rows):
            while True:
                where = f"{source}, split {split}, row {number}"
                try:
                    row = next(rows, None)
                except (OSError, ValueError, DatasetsError) as error:
                    raise DataPrepError(f"{where}: {_first_line(error)}") from error
                if row is None:
                    break
                path = tuple(self._label(where, row, column, names.get(column)) for column in columns[1:])
                yield Sample(
                    id=f"{self.name}/{split}/{number}",
                    picture=self._picture(where, row, root),
                    label=path[-1],
                    label_path=path,
                    split=split,
                    class_key=" > ".join(path),
                )
                number += 1
        if number == 0:
            raise DataPrepError(f"{source}: the split {split} has no rows")

    def _names(self, names: list[str], root: Path) -> list[str]:
        """Names of a ClassLabel, by its numbers."""
        if self.verbatim:
            return names
        given = [readable(name) for name in names]
        if not any(map(is_number, given)):
            return given
        found = named(given, [] if self.repo else [root], "options.verbatim=true")
        return [found.get(name, name) for name in given]

    def _load(self, root: Path, split: str) -> Any:
        from datasets import load_dataset
        from datasets.exceptions import DatasetsError

        source = self.repo or str(root)
        try:
            if self.repo:
                return load_dataset(self.repo, self.subset, split=split, revision=self.revision)
            if not root.is_dir():
                raise DataPrepError(
                    f"{root}: no such directory; set options.repo=OWNER/NAME to take a dataset of the Hub"
                )
            if (root / "dataset_dict.json").exists() or (root / "dataset_info.json").exists():
                return _saved(root, split)
            # Streaming reads the files in place; otherwise they would be copied into the cache.
            return load_dataset(str(root), self.subset, split=split, streaming=True)
        except DataPrepError:
            raise
        except FileNotFoundError as error:
            raise DataPrepError(f"{source}: not found: {_first_line(error)}; check the name") from error
        except OSError as error:
            hand = (
                f"; if this machine is offline, run `hf download --repo-type dataset {self.repo} --local-dir FOLDER` "
                "on one that is not, copy FOLDER here and read it as the root, without options.repo"
            )
            raise DataPrepError(f"{source}: {_first_line(error)}{hand if self.repo else ''}") from error
        except (ValueError, LookupError, DatasetsError) as error:
            raise DataPrepError(f"{source}: cannot be loaded: {_first_line(error)}") from error

    def _label(self, where: str, row: dict[str, Any], column: str, names: list[str] | None) -> str:
        value = row.get(column)
        if names is not None and isinstance(value, int):
            if not 0 <= value < len(names):
                raise DataPrepError(f"{where}: {column} is {value}: this row has no label; choose another split")
            label = names[value]
        elif isinstance(value, str):
            label = value.strip()
        else:
            raise DataPrepError(f"{where}: {column} is {value!r}: neither text nor a ClassLabel, so it has no name")
        if not label:
            raise DataPrepError(f"{where}: {column} is empty")
        if is_number(label) and not self.verbatim:
            raise DataPrepError(
                f"{where}: {column} is {label!r}, a number, which names nothing; choose a column with names, or set "
                "options.verbatim=true if numbers are the names"
            )
        return label

    def _picture(self, where: str, row: dict[str, Any], root: Path) -> Picture:
        value = row.get(self.image_column)
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, bytes):
            return Picture(where=where, data=value)
        if isinstance(value, str) and value:
            refuse_no_path(value, f"{where}: {self.image_column}")
            return Picture(where=where, path=root / value, remedy=f"correct {self.image_column} of this row")
        raise DataPrepError(f"{where}: {self.image_column} holds no encoded image")


def _rows(data: Any) -> Generator[Any, None, None]:
    """Rows of a dataset, to be closed.

    A file that is left half-read keeps Arrow's threads alive, which abort the process when it ends
    (apache/arrow#45214): everything that reads it has to go before.
    """
    rows = iter(data)
    del data
    try:
        while True:
            try:
                row = next(rows)
            except StopIteration:
                return
            yield row
    finally:
        del rows
        gc.collect()


def _saved(root: Path, split: str) -> Any:
    """What `save_to_disk` wrote: a DatasetDict, or one Dataset that is its own split or `all`."""
    from datasets import load_from_disk

    data = load_from_disk(str(root))
    if (root / "dataset_dict.json").exists():
        if split not in data:
            raise DataPrepError(f"{root}: there is no split '{split}', only {', '.join(data)}")
        return data[split]
    if split not in ("all", str(data.split)):
        own = f", or '{data.split}'" if data.split else ""
        raise DataPrepError(f"{root}: one dataset without splits; ask for the split 'all'{own}")
    return data


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
