"""Oxford-IIIT Pets: 37 breeds of cats and dogs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from data_prep.readers import coop_splits
from data_prep.readers.base import About, Archive, Picture, Sample
from data_prep.readers.parsing import check_split, fault, find, readable, rows, undoubled, whole_number

PLACE = "https://www.robots.ox.ac.uk/~vgg/data/pets"
OFFICIAL = ("trainval", "test")
CLASSES = 37
SPECIES = {1: "cat", 2: "dog"}


@dataclass(frozen=True)
class Pets:
    """Reader of annotations/{trainval,test}.txt: image, class id, species, breed id."""

    coop_split: Path | None = None
    """CoOp's split_zhou_OxfordPets.json for the splits coop_*; by default looked for beside images/."""

    @property
    def about(self) -> About:
        return About(
            name="pets",
            title="Oxford-IIIT Pet",
            version="2012",
            licence="CC BY-SA 4.0",
            homepage=f"{PLACE}/",
            archives=(
                Archive(
                    url=f"{PLACE}/data/images.tar.gz",
                    file_name="images.tar.gz",
                    md5="5c4f3ee8e5d25df40f4fd59a7f44e54c",
                    size_bytes=791_918_971,
                    witness="oxford-iiit-pet/images/Abyssinian_1.jpg",
                ),
                Archive(
                    url=f"{PLACE}/data/annotations.tar.gz",
                    file_name="annotations.tar.gz",
                    md5="95a8c909bbe2e81eed6a22bccdf3f68f",
                    size_bytes=19_173_078,
                    witness="oxford-iiit-pet/annotations/trainval.txt",
                ),
            ),
            splits=(*OFFICIAL, *coop_splits.SPLITS),
            published_counts={
                "trainval": 3680,
                "test": 3669,
                "coop_train": 2944,
                "coop_val": 736,
                "coop_test": 3669,
            },
            published_classes=CLASSES,
            levels=("species", "breed"),
        )

    def samples(self, root: Path, split: str) -> Iterator[Sample]:
        check_split(self.about, split)
        images = find(self.about, root, "oxford-iiit-pet/images")
        if split in OFFICIAL:
            listed = _official(find(self.about, root, f"oxford-iiit-pet/annotations/{split}.txt"))
        else:
            name = "split_zhou_OxfordPets.json"
            file = coop_splits.split_file(self.about, self.coop_split, name, images.parent, root)
            listed = _coop(file, split)
        for image, species in listed:
            key = image.rpartition("_")[0]
            breed = readable(key)
            yield Sample(
                id=f"pets/{image}",
                picture=Picture(where=f"images/{image}", path=undoubled(images) / image),
                label=breed,
                label_path=(species, breed),
                split=split,
                class_key=key,
            )


def _official(file: Path) -> Iterator[tuple[str, str]]:
    for row, (image, number, species, _) in rows(file, 4):
        whole_number(file, row, number, range(1, CLASSES + 1))
        kind = whole_number(file, row, species, tuple(SPECIES))
        if not image.rpartition("_")[0]:
            raise fault(file, row, f"breed_number expected, found '{image}'")
        yield f"{image}.jpg", SPECIES[kind]


def _coop(file: Path, split: str) -> Iterator[tuple[str, str]]:
    for row, image, index in coop_splits.rows(file, split):
        if not 0 <= index < CLASSES:
            raise coop_splits.fault(file, split, row, f"class index {index} is not 0 to {CLASSES - 1}")
        image = PurePosixPath(image).name  # the dataset's own folder has no classes in it
        if not image.rpartition("_")[0]:
            raise coop_splits.fault(file, split, row, f"breed_number.jpg expected, found '{image}'")
        # The dataset's list.txt: the files of cats begin with a capital, those of dogs do not.
        yield image, SPECIES[1] if image[0].isupper() else SPECIES[2]
