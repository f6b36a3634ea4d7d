"""Caltech-101: pictures of 101 kinds of objects."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data_prep.readers.base import About, Archive, Picture, Sample
from data_prep.readers.parsing import check_split, find, readable
from speciarl.errors import DataPrepError

TOP = "101_ObjectCategories"
LEFT_OUT = "BACKGROUND_Google"
"""Clutter without an object."""
NAMES = {
    "Faces": "face",
    "Faces_easy": "face",
    "Leopards": "leopard",
    "Motorbikes": "motorbike",
    "airplanes": "airplane",
    "water_lilly": "water lily",
}
"""Where the directory's name is plural, misspelt or names the way of taking the picture."""


@dataclass(frozen=True)
class Caltech101:
    """Reader of 101_ObjectCategories/<category>/image_0001.jpg and so on, without the background category.

    The dataset has no official split; its authors suggest a fixed number of training images per category and random
    repetitions. `train` is the `train_per_class` images of a category with the smallest SHA-256 of
    "<seed>/<category>/<file>", `test` the others, of which at least one always stays; `all` is both.
    """

    train_per_class: int = 30
    seed: int = 0

    @property
    def about(self) -> About:
        return About(
            name="caltech101",
            title="Caltech-101",
            version="2003",
            licence="CC BY 4.0",
            homepage="https://data.caltech.edu/records/mzrjq-6wc02",
            archives=(
                Archive(
                    url="https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip",
                    file_name="caltech-101.zip",
                    md5="3138e1922a9193bfa496528edbbc45d0",
                    inner=("caltech-101/101_ObjectCategories.tar.gz",),
                    witness=f"{TOP}/accordion/image_0001.jpg",
                ),
            ),
            splits=("train", "test", "all"),
            published_counts={"all": 8677},
            published_classes=101,
            levels=("object",),
        )

    def samples(self, root: Path, split: str) -> Iterator[Sample]:
        check_split(self.about, split)
        if self.train_per_class < 1:
            raise DataPrepError(f"caltech101: train_per_class is {self.train_per_class}; it must be 1 or more")
        top = find(self.about, root, f"caltech-101/{TOP}") if root.name != TOP else root
        categories = sorted(folder.name for folder in top.iterdir() if folder.is_dir() and folder.name != LEFT_OUT)
        for category in categories:
            images = sorted(file.name for file in (top / category).glob("image_*.jpg"))
            if not images:
                raise DataPrepError(f"{top / category}: no image_*.jpg in it; unpack the archive again")
            training = self._training(category, images)
            name = NAMES.get(category, readable(category))
            for image in images:
                if split == "all" or (image in training) == (split == "train"):
                    yield Sample(
                        id=f"caltech101/{category}/{image}",
                        picture=Picture(where=f"{TOP}/{category}/{image}", path=top / category / image),
                        label=name,
                        label_path=(name,),
                        split=split,
                        class_key=category,
                    )

    def _training(self, category: str, images: list[str]) -> set[str]:
        count = min(self.train_per_class, len(images) - 1)
        return set(sorted(images, key=lambda image: self._place(category, image))[:count])

    def _place(self, category: str, image: str) -> bytes:
        return hashlib.sha256(f"{self.seed}/{category}/{image}".encode()).digest()
