"""Caltech-UCSD Birds 200-2011: 200 species of birds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data_prep.readers.base import About, Archive, Picture, Sample
from data_prep.readers.parsing import check_split, fault, find, readable, rows, undoubled, whole_number

WITNESS = "CUB_200_2011/images.txt"
TRAIN_FLAG = {"train": 1, "test": 0}


@dataclass(frozen=True)
class Cub200:
    """Reader of images.txt, image_class_labels.txt, train_test_split.txt and classes.txt."""

    last_word_level: bool = False
    """Put the last word of a name above it (Albatross > Black footed Albatross). A guess at the kind of bird, which the
    data do not carry: right for most names, but e.g. `Chuck will Widow` comes under `Widow`."""

    @property
    def about(self) -> About:
        return About(
            name="cub200",
            title="Caltech-UCSD Birds-200-2011",
            version="2011",
            licence="non-commercial research and education only",
            homepage="https://www.vision.caltech.edu/datasets/cub_200_2011/",
            archives=(
                Archive(
                    url="https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
                    file_name="CUB_200_2011.tgz",
                    md5="97eceeb196236b17998738112f37df78",
                    size_bytes=1_150_585_339,
                    witness=WITNESS,
                ),
            ),
            splits=tuple(TRAIN_FLAG),
            published_counts={"train": 5994, "test": 5794},
            published_classes=200,
            levels=("last word", "species") if self.last_word_level else ("species",),
        )

    def samples(self, root: Path, split: str) -> Iterator[Sample]:
        check_split(self.about, split)
        top = find(self.about, root, WITNESS).parent
        images = undoubled(top / "images")
        classes = _by_id(top / "classes.txt")
        label_file, split_file = top / "image_class_labels.txt", top / "train_test_split.txt"
        label_of, flag_of = _by_id(label_file), _by_id(split_file)
        for image, (row, file) in _by_id(top / "images.txt").items():
            for table, kept in ((label_of, label_file), (flag_of, split_file)):
                if image not in table:
                    raise fault(top / "images.txt", row, f"image {image} is not in {kept.name}")
            flag_row, flag = flag_of[image]
            if whole_number(split_file, flag_row, flag, (0, 1)) != TRAIN_FLAG[split]:
                continue
            label_row, label = label_of[image]
            number = whole_number(label_file, label_row, label, list(classes))
            key = classes[number][1]
            name = readable(key)
            yield Sample(
                id=f"cub200/{file}",
                picture=Picture(where=file, path=images / file),
                label=name,
                label_path=(name.split()[-1], name) if self.last_word_level else (name,),
                split=split,
                class_key=key,
            )


def _by_id(file: Path) -> dict[int, tuple[int, str]]:
    """Id -> row number and text of its line."""
    found: dict[int, tuple[int, str]] = {}
    for row, (number, text) in rows(file, 2):
        key = whole_number(file, row, number)
        if key in found:
            raise fault(file, row, f"{key} is there already in row {found[key][0]}")
        found[key] = (row, text)
    return found
