"""FGVC-Aircraft 2013b: 100 variants of aircraft, in families, by manufacturers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data_prep.readers.base import About, Archive, Picture, Sample
from data_prep.readers.parsing import check_split, fault, find, rows, undoubled
from speciarl.errors import DataPrepError

WITNESS = "fgvc-aircraft-2013b/data/variants.txt"
LEVELS = ("manufacturer", "family", "variant")


@dataclass(frozen=True)
class Aircraft:
    """Reader of data/images_{variant,family,manufacturer}_SPLIT.txt; names stay as published (`F/A-18`, `737-700`)."""

    @property
    def about(self) -> About:
        return About(
            name="aircraft",
            title="FGVC-Aircraft",
            version="2013b",
            licence="non-commercial research only; the photographers keep their copyright",
            homepage="https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/",
            archives=(
                Archive(
                    url="https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz",
                    file_name="fgvc-aircraft-2013b.tar.gz",
                    md5="d4acdd33327262359767eeaa97a4f732",
                    witness=WITNESS,
                ),
            ),
            splits=("train", "val", "trainval", "test"),
            published_counts={"train": 3334, "val": 3333, "trainval": 6667, "test": 3333},
            published_classes=100,
            levels=LEVELS,
        )

    def samples(self, root: Path, split: str) -> Iterator[Sample]:
        check_split(self.about, split)
        data = find(self.about, root, WITNESS).parent
        images = undoubled(data / "images")
        variants = {name for _, (name,) in rows(data / "variants.txt")}
        tables = {level: _labels(data / f"images_{level}_{split}.txt") for level in LEVELS}
        variant_file = data / f"images_variant_{split}.txt"
        for image, (row, variant) in tables["variant"].items():
            if variant not in variants:
                raise fault(variant_file, row, f"the variant '{variant}' is not in variants.txt")
            for level in LEVELS[:2]:
                if image not in tables[level]:
                    raise fault(variant_file, row, f"image {image} is not in images_{level}_{split}.txt")
            yield Sample(
                id=f"aircraft/{image}.jpg",
                picture=Picture(where=f"images/{image}.jpg", path=images / f"{image}.jpg"),
                label=variant,
                label_path=(tables["manufacturer"][image][1], tables["family"][image][1], variant),
                split=split,
                class_key=variant,
            )


def _labels(file: Path) -> dict[str, tuple[int, str]]:
    """Image id -> row number and label."""
    found: dict[str, tuple[int, str]] = {}
    for row, (image, label) in rows(file, 2):
        if image in found:
            raise fault(file, row, f"image {image} is there already in row {found[image][0]}")
        found[image] = (row, label)
    if not found:
        raise DataPrepError(f"{file}: no images in it; unpack the archive again")
    return found
