"""Image folder: the user's own pictures, in one directory per class."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data_prep.readers.base import About, LeftOut, Picture, Sample
from data_prep.readers.class_names import FILES, named
from data_prep.readers.formats import suffixes, why_unread
from data_prep.readers.parsing import readable
from speciarl.errors import DataPrepError

ALL = "all"


@dataclass(frozen=True)
class ImageFolder:
    """Reader of <class>/<image> for the split `all`, and <split>/<class>/<image> for any other split."""

    name: str = "image_folder"
    """Name of the dataset in ids and in `data_source`."""
    hierarchy: bool = False
    """Take nested directories as levels, broadest first (bird/jay/blue_jay/1.jpg)."""
    verbatim: bool = False
    """Take directory names as labels just as they are, numbers too, instead of dropping numbering and underscores."""
    ignore_other_files: bool = False
    """Pass over files that are no images by their suffix, instead of refusing them; the report counts them."""

    @property
    def about(self) -> About:
        return About(
            name=self.name,
            title="Image folder",
            version="",
            licence="your own",
            homepage="",
            archives=(),
            splits=(),
            published_counts={},
            published_classes=None,
            levels=() if self.hierarchy else ("class",),
        )

    def samples(self, root: Path, split: str) -> Iterator[Sample]:
        folder = root if split == ALL else root / split
        if not folder.is_dir():
            found = sorted(child.name for child in root.iterdir() if child.is_dir()) if root.is_dir() else []
            offer = f"{root} holds {', '.join(found[:8])}{' …' if len(found) > 8 else ''}" if found else "make it"
            raise DataPrepError(
                f"{folder}: no such directory; {offer} (where those are classes: splits.train=[{ALL}] splits.test=[])"
            )
        files = list(self._images(folder))
        if not files:
            found = [left.detail for left in self.left_out(root, split) if not left.is_class]
            raise DataPrepError(
                f"{folder}: no images in it{f' ({found[0]})' if found else ''}; expected are <class>/<image> with "
                f"{', '.join(sorted(suffixes()))}"
            )
        parts = {part for file in files for part in file.relative_to(folder).parts[:-1]}
        names = {part: part if self.verbatim else readable(part) for part in parts}
        if not self.verbatim:
            given = named(names.values(), (root, folder, root.parent), "options.verbatim=true")
            names = {part: given.get(name, name) for part, name in names.items()}
        for file in files:
            inside = file.relative_to(folder)
            path = tuple(names[part] for part in inside.parts[:-1])
            self._check(file, path)
            where = file.relative_to(root).as_posix()
            yield Sample(
                id=f"{self.name}/{where}",
                picture=Picture(where=where, path=file, remedy="check its permissions"),
                label=path[-1],
                label_path=path,
                split=split,
                class_key=inside.parent.as_posix(),
            )

    def left_out(self, root: Path, split: str) -> Iterator[LeftOut]:
        """Files that `samples` passes over, counted by directory, and class directories without an image."""
        folder = root if split == ALL else root / split
        for place, folders, files in os.walk(folder, onerror=_unreadable, followlinks=True):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            where = Path(place).relative_to(root).as_posix()
            top = Path(place) == folder
            seen = [name for name in files if not name.startswith(".") and not (name in FILES and top)]
            others = Counter(Path(name).suffix.lower() for name in seen if Path(name).suffix.lower() not in suffixes())
            if others:
                counts = ", ".join(f"{count} x {_described(suffix)}" for suffix, count in sorted(others.items()))
                yield LeftOut(where, f"no images by their suffix: {counts}", is_class=False)
            if not folders and len(seen) == others.total() and not top:
                yield LeftOut(where, "a class directory without an image", is_class=True)

    def _images(self, folder: Path) -> Iterator[Path]:
        """Every image below the folder in the order of the path's parts; what is hidden is passed over."""
        for place, folders, files in os.walk(folder, onerror=_unreadable, followlinks=True):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(name for name in files if not name.startswith(".")):
                file = Path(place, name)
                if file.suffix.lower() in suffixes():
                    yield file
                elif not self.ignore_other_files and not (name in FILES and Path(place) == folder):
                    what = why_unread(file.suffix.lower()) or "not an image by its suffix; move it"
                    raise DataPrepError(f"{file}: {what}, or set options.ignore_other_files=true")

    def _check(self, file: Path, path: tuple[str, ...]) -> None:
        if not path:
            raise DataPrepError(f"{file}: an image outside of any class directory; move it into one")
        if len(path) > 1 and not self.hierarchy:
            raise DataPrepError(
                f"{file}: {len(path)} directories deep; set options.hierarchy=true for levels of classes, "
                "or ask for a split if the first of them is one"
            )
        if "" in path:
            raise DataPrepError(f"{file}: a directory's name leaves no label; rename it, or set options.verbatim=true")


def _described(suffix: str) -> str:
    """A suffix of files that are left out, with the reason where they are pictures."""
    unread = why_unread(suffix)
    return (suffix or "no suffix") + (f" ({unread})" if unread else "")


def _unreadable(error: OSError) -> None:
    raise DataPrepError(f"{error.filename}: {error.strerror}; check its permissions") from error
