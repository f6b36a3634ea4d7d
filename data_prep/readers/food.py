"""Food-101: 101 dishes, 1000 photographs of each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data_prep.readers import coop_splits
from data_prep.readers.base import About, Archive, Picture, Sample
from data_prep.readers.parsing import check_split, fault, find, rows, text, undoubled
from speciarl.errors import DataPrepError

WITNESS = "food-101/meta/classes.txt"
OFFICIAL = ("train", "test")


@dataclass(frozen=True)
class Food:
    """Reader of meta/{train,test}.txt (or .json where only that is left), meta/classes.txt and meta/labels.txt."""

    coop_split: Path | None = None
    """CoOp's split_zhou_Food101.json for the splits coop_*; by default looked for beside images/."""

    @property
    def about(self) -> About:
        return About(
            name="food",
            title="Food-101",
            version="2014",
            licence="photographs of Foodspotting's users; scientific fair use only",
            homepage="https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
            archives=(
                Archive(
                    url="http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",
                    file_name="food-101.tar.gz",
                    md5="85eeb15f3717b99a5da872d97d918f87",
                    size_bytes=4_996_278_331,
                    witness=WITNESS,
                ),
            ),
            splits=(*OFFICIAL, *coop_splits.SPLITS),
            published_counts={
                "train": 75_750,
                "test": 25_250,
                "coop_train": 50_500,
                "coop_val": 20_200,
                "coop_test": 30_300,
            },
            published_classes=101,
            levels=("dish",),
        )

    def samples(self, root: Path, split: str) -> Iterator[Sample]:
        check_split(self.about, split)
        meta = find(self.about, root, WITNESS).parent
        names = _names(meta)
        images = undoubled(meta.parent / "images")
        if split in OFFICIAL:
            listed = _official(meta, split, names)
        else:
            file = coop_splits.split_file(self.about, self.coop_split, "split_zhou_Food101.json", meta.parent, root)
            listed = _coop(file, split, names)
        for image in listed:
            key = image.split("/")[0]
            yield Sample(
                id=f"food/{image}",
                picture=Picture(where=f"images/{image}", path=images / image),
                label=names[key],
                label_path=(names[key],),
                split=split,
                class_key=key,
            )


def _names(meta: Path) -> dict[str, str]:
    """Class directory -> the name that labels.txt has in the same row."""
    keys, labels = ([line for _, (line,) in rows(meta / file)] for file in ("classes.txt", "labels.txt"))
    if len(keys) != len(labels):
        raise DataPrepError(f"{meta}: classes.txt has {len(keys)} rows, labels.txt {len(labels)}; unpack again")
    return dict(zip(keys, labels, strict=True))


def _official(meta: Path, split: str, names: dict[str, str]) -> Iterator[str]:
    listing = meta / f"{split}.txt"
    if not listing.exists() and listing.with_suffix(".json").exists():
        yield from _from_json(listing.with_suffix(".json"), names)
        return
    for row, (image,) in rows(listing):
        key, slash, number = image.partition("/")
        if not (slash and number):
            raise fault(listing, row, f"class/number expected, found '{image}'")
        if key not in names:
            raise fault(listing, row, f"the class '{key}' is not in classes.txt")
        yield f"{image}.jpg"


def _from_json(listing: Path, names: dict[str, str]) -> Iterator[str]:
    try:
        content = json.loads(text(listing))
    except json.JSONDecodeError as error:
        raise DataPrepError(f"{listing}: not JSON (line {error.lineno}: {error.msg}); unpack again") from error
    if not isinstance(content, dict):
        raise DataPrepError(f'{listing}: {{"class": ["class/number", …], …}} expected; unpack the archive again')
    for key, images in content.items():
        if key not in names:
            raise DataPrepError(f"{listing}: the class '{key}' is not in classes.txt; unpack the archive again")
        if not isinstance(images, list) or not all(isinstance(image, str) for image in images):
            raise DataPrepError(f"{listing}: the images of '{key}' are not a list of names; unpack the archive again")
        yield from (f"{image}.jpg" for image in images)


def _coop(file: Path, split: str, names: dict[str, str]) -> Iterator[str]:
    for row, image, _ in coop_splits.rows(file, split):
        if image.split("/")[0] not in names:
            raise coop_splits.fault(file, split, row, f"the class of '{image}' is not in classes.txt")
        yield image
