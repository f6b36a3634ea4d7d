"""Stanford Cars: 196 makes, models and years."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import SupportsInt

from data_prep.readers.base import About, Archive, Picture, Sample
from data_prep.readers.hub import Hub
from data_prep.readers.image_folder import ImageFolder
from data_prep.readers.parsing import check_split, find, matlab, undoubled
from speciarl.errors import DataPrepError

PLACE = "https://ai.stanford.edu/~jkrause"
META = "stanford_cars/devkit/cars_meta.mat"


@dataclass(frozen=True)
class Cars:
    """Reader of devkit/cars_meta.mat, devkit/cars_train_annos.mat and cars_test_annos_withlabels.mat.

    The dataset has lost its home, so copies are read as well: one of the Hugging Face Hub (`repo`, or parquet files in
    the root), and one in directories, SPLIT/CLASS/IMAGE. Classes have the same names in all of them.
    """

    repo: str = ""
    """A copy on the Hub, such as `tanganke/stanford_cars`; the root is then not looked at."""
    revision: str | None = None
    """Its commit, tag or branch."""

    @property
    def about(self) -> About:
        return About(
            name="cars",
            title="Stanford Cars",
            version="2013",
            licence="non-commercial research only",
            homepage=f"{PLACE}/cars/car_dataset.html",
            archives=(
                Archive(
                    url=f"{PLACE}/cars/car_devkit.tgz",
                    file_name="car_devkit.tgz",
                    md5="c3b158d763b6e2245038c8ad08e45376",
                    size_bytes=330_960,
                    witness="stanford_cars/devkit/cars_meta.mat",
                ),
                Archive(
                    url=f"{PLACE}/car196/cars_train.tgz",
                    file_name="cars_train.tgz",
                    md5="065e5b463ae28d29e77c1b4b166cfe61",
                    size_bytes=979_269_282,
                    witness="stanford_cars/cars_train/00001.jpg",
                ),
                Archive(
                    url=f"{PLACE}/car196/cars_test.tgz",
                    file_name="cars_test.tgz",
                    md5="4ce7ebf6a94d07f1952d94dd34c4d501",
                    size_bytes=977_350_468,
                    witness="stanford_cars/cars_test/00001.jpg",
                ),
                Archive(
                    url=f"{PLACE}/car196/cars_test_annos_withlabels.mat",
                    file_name="cars_test_annos_withlabels.mat",
                    md5="b0a2b23655a3edd16d84508592a98d10",
                    size_bytes=185_758,
                    unpack=False,
                    witness="stanford_cars/cars_test_annos_withlabels.mat",
                ),
            ),
            splits=("train", "test"),
            published_counts={"train": 8144, "test": 8041},
            published_classes=196,
            levels=("make", "model", "year"),
        )

    def samples(self, root: Path, split: str) -> Iterator[Sample]:
        check_split(self.about, split)
        copied = self._copy(root, split)
        if copied is not None:
            yield from map(_of_copy, copied)
            return
        meta = find(self.about, root, META)
        if meta.parent.name != "devkit":
            raise DataPrepError(f"{meta}: it has to lie in a folder devkit, beside cars_train and cars_test; move it")
        folder = meta.parents[1]
        (names,) = matlab(meta, "class_names")
        paths = [_path(meta, number, name) for number, name in enumerate(names, 1)]
        file = meta.with_name("cars_train_annos.mat") if split == "train" else _test_labels(folder)
        images = undoubled(folder / f"cars_{split}")
        (table,) = matlab(file, "annotations")
        if not {"class", "fname"} <= set(table.dtype.names or ()):
            raise DataPrepError(f"{file}: the annotations have no class or fname; is it the file with the labels?")
        for row, entry in enumerate(table, 1):
            image, number = entry["fname"], entry["class"]
            if not isinstance(image, str) or not isinstance(number, SupportsInt):
                raise DataPrepError(f"{file}, row {row}: fname {image}, class {number}: a name and a number expected")
            number = int(number)
            if not 1 <= number <= len(paths):
                raise DataPrepError(f"{file}, row {row}: class {number} is not 1 to {len(paths)} as in {meta.name}")
            path = paths[number - 1]
            yield Sample(
                id=f"cars/cars_{split}/{image}",
                picture=Picture(where=f"cars_{split}/{image}", path=images / image),
                label=path[-1],
                label_path=path,
                split=split,
                class_key=str(number),
            )

    def _copy(self, root: Path, split: str) -> Iterator[Sample] | None:
        """Samples of a copy in another form; None where there is none."""
        if (
            self.repo
            or (root / "dataset_dict.json").exists()
            or any(root.glob("*.parquet"))
            or any(root.glob("data/*.parquet"))
        ):
            return Hub("cars", self.repo, self.revision, verbatim=True).samples(root, split)
        for folder in (root, root / "car_data", root / "car_data" / "car_data"):
            if (folder / split).is_dir():
                return ImageFolder("cars", verbatim=True).samples(folder, split)
        return None


def _of_copy(sample: Sample) -> Sample:
    """The sample with the levels of its class; its name as the devkit writes it, except for the case of letters."""
    # A slash cannot be in a directory's name, and some put the year first.
    name = _YEAR_FIRST.sub(r"\2 \1", sample.label.replace("C-V Cargo", "C/V Cargo"))
    try:
        path = car_path(name)
    except ValueError as error:
        raise DataPrepError(f"{sample.picture.where}: {error}; is this Stanford Cars?") from error
    return replace(sample, label=path[-1], label_path=path, class_key=path[-1])


def _path(meta: Path, number: int, name: object) -> tuple[str, str, str]:
    try:
        return car_path(str(name))
    except ValueError as error:
        raise DataPrepError(f"{meta}, class {number}: {error}; fetch the devkit again") from error


def _test_labels(folder: Path) -> Path:
    name = "cars_test_annos_withlabels.mat"
    place = folder / "devkit" / name
    return place if place.exists() else folder / name


# Every make of the dataset that is more than one word; a hyphenated one (Mercedes-Benz, Rolls-Royce) is one word.
LONG_MAKES = ("AM General", "Aston Martin", "Land Rover")
_YEAR = re.compile(r"(?:19|20)\d\d")
_YEAR_FIRST = re.compile(r"((?:19|20)\d\d)\s+(.*\D)")


def car_path(name: str) -> tuple[str, str, str]:
    """`Land Rover LR2 SUV 2012` -> (`Land Rover`, `Land Rover LR2 SUV`, `Land Rover LR2 SUV 2012`).

    Each level is a name that stands for itself. The first word is the make unless the name begins with one of
    `LONG_MAKES`: `Ram C/V Cargo Van Minivan 2012` is a Ram, `Dodge Ram Pickup 3500 Crew Cab 2010` a Dodge. Raises
    ValueError when the last word is no year or nothing stands between make and year.
    """
    words = name.split()
    whole = " ".join(words)
    long = next((make for make in LONG_MAKES if whole.lower().startswith(f"{make.lower()} ")), None)
    make = whole[: len(long)] if long else words[0] if words else ""
    if not words or not _YEAR.fullmatch(words[-1]):
        raise ValueError(f"'{whole}' does not end with a year")
    model = " ".join(words[:-1])
    if model in (make, ""):
        raise ValueError(f"'{whole}' has no model between make and year")
    return make, model, whole
