"""Stanford Cars: 196 makes, models and years."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import SupportsInt

from data_prep.dataset import About, Archive
from data_prep.datasets.car_names import car_path
from data_prep.errors import DataPrepError
from data_prep.layout import check_split, find, matlab
from data_prep.sample import Picture, Sample

PLACE = "https://ai.stanford.edu/~jkrause"
META = "stanford_cars/devkit/cars_meta.mat"


@dataclass(frozen=True)
class Cars:
    """Reads devkit/cars_meta.mat, devkit/cars_train_annos.mat and cars_test_annos_withlabels.mat."""

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
        meta = find(self.about, root, META)
        folder = meta.parents[1]
        (names,) = matlab(meta, "class_names")
        paths = [_path(meta, number, name) for number, name in enumerate(names, 1)]
        file = meta.with_name("cars_train_annos.mat") if split == "train" else _test_labels(folder)
        # Copies from elsewhere often have the folder of the archive in one of the same name.
        images = folder / f"cars_{split}"
        images = images / images.name if (images / images.name).is_dir() else images
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


def _path(meta: Path, number: int, name: object) -> tuple[str, str, str]:
    try:
        return car_path(str(name))
    except ValueError as error:
        raise DataPrepError(f"{meta}, class {number}: {error}; fetch the devkit again") from error


def _test_labels(folder: Path) -> Path:
    name = "cars_test_annos_withlabels.mat"
    place = folder / "devkit" / name
    return place if place.exists() else folder / name
