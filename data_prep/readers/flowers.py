"""Oxford Flowers-102: flowers common in the United Kingdom."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from data_prep.readers import coop_splits
from data_prep.readers.base import About, Archive, Picture, Sample
from data_prep.readers.parsing import check_split, find, matlab_numbers, undoubled
from speciarl.errors import DataPrepError

PLACE = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102"
IDS = {"train": "trnid", "val": "valid", "test": "tstid"}


@dataclass(frozen=True)
class Flowers:
    """Reader of imagelabels.mat and setid.mat, or a split file of CoOp, for jpg/image_00001.jpg and so on."""

    coop_split: Path | None = None
    """CoOp's split_zhou_OxfordFlowers.json for the splits coop_*; by default looked for beside jpg/."""

    @property
    def about(self) -> About:
        return About(
            name="flowers",
            title="Oxford 102 Flowers",
            version="2008",
            licence="none stated; pictures from the web and the authors, for research",
            homepage=f"{PLACE}/",
            archives=(
                Archive(
                    url=f"{PLACE}/102flowers.tgz",
                    file_name="102flowers.tgz",
                    md5="52808999861908f626f3c1f4e79d11fa",
                    size_bytes=344_862_509,
                    witness="flowers-102/jpg/image_00001.jpg",
                ),
                Archive(
                    url=f"{PLACE}/imagelabels.mat",
                    file_name="imagelabels.mat",
                    md5="e0620be6f572b9609742df49c70aed4d",
                    size_bytes=502,
                    unpack=False,
                    witness="flowers-102/imagelabels.mat",
                ),
                Archive(
                    url=f"{PLACE}/setid.mat",
                    file_name="setid.mat",
                    md5="a5357ecc9cb78c4bef273ce3793fc85c",
                    size_bytes=14_989,
                    unpack=False,
                    witness="flowers-102/setid.mat",
                ),
            ),
            splits=(*IDS, *coop_splits.SPLITS),
            published_counts={
                "train": 1020,
                "val": 1020,
                "test": 6149,
                "coop_train": 4093,
                "coop_val": 1633,
                "coop_test": 2463,
            },
            published_classes=102,
            levels=("flower",),
        )

    def samples(self, root: Path, split: str) -> Iterator[Sample]:
        check_split(self.about, split)
        listed = self._official(root, split) if split in IDS else self._coop(root, split)
        for folder, file, number in listed:
            name = NAMES[number - 1]
            yield Sample(
                id=f"flowers/{file}",
                picture=Picture(where=f"jpg/{file}", path=undoubled(folder / "jpg") / file),
                label=name,
                label_path=(name,),
                split=split,
                class_key=str(number),
            )

    def _official(self, root: Path, split: str) -> Iterator[tuple[Path, str, int]]:
        label_file = find(self.about, root, "flowers-102/imagelabels.mat")
        set_file = label_file.with_name("setid.mat")
        labels = matlab_numbers(label_file, "labels")
        for image in matlab_numbers(set_file, IDS[split]):
            if not 1 <= image <= len(labels):
                raise DataPrepError(f"{set_file}: {IDS[split]} has image {image}, imagelabels.mat 1 to {len(labels)}")
            number = labels[image - 1]
            if not 1 <= number <= len(NAMES):
                raise DataPrepError(f"{label_file}: image {image} has class {number}, not 1 to {len(NAMES)}")
            yield label_file.parent, f"image_{image:05d}.jpg", number

    def _coop(self, root: Path, split: str) -> Iterator[tuple[Path, str, int]]:
        folder = find(self.about, root, "flowers-102/jpg").parent
        file = coop_splits.split_file(self.about, self.coop_split, "split_zhou_OxfordFlowers.json", folder, root)
        for row, image, index in coop_splits.rows(file, split, NAMES):
            if not 0 <= index < len(NAMES):
                raise coop_splits.fault(file, split, row, f"class index {index} is not 0 to {len(NAMES) - 1}")
            yield folder, PurePosixPath(image).name, index + 1  # the dataset's own folder has no classes in it


NAMES = (
    "pink primrose",
    "hard-leaved pocket orchid",
    "canterbury bells",
    "sweet pea",
    "english marigold",
    "tiger lily",
    "moon orchid",
    "bird of paradise",
    "monkshood",
    "globe thistle",
    "snapdragon",
    "colt's foot",
    "king protea",
    "spear thistle",
    "yellow iris",
    "globe-flower",
    "purple coneflower",
    "peruvian lily",
    "balloon flower",
    "giant white arum lily",
    "fire lily",
    "pincushion flower",
    "fritillary",
    "red ginger",
    "grape hyacinth",
    "corn poppy",
    "prince of wales feathers",
    "stemless gentian",
    "artichoke",
    "sweet william",
    "carnation",
    "garden phlox",
    "love in the mist",
    "mexican aster",
    "alpine sea holly",
    "ruby-lipped cattleya",
    "cape flower",
    "great masterwort",
    "siam tulip",
    "lenten rose",
    "barbeton daisy",
    "daffodil",
    "sword lily",
    "poinsettia",
    "bolero deep blue",
    "wallflower",
    "marigold",
    "buttercup",
    "oxeye daisy",
    "common dandelion",
    "petunia",
    "wild pansy",
    "primula",
    "sunflower",
    "pelargonium",
    "bishop of llandaff",
    "gaura",
    "geranium",
    "orange dahlia",
    "pink-yellow dahlia",
    "cautleya spicata",
    "japanese anemone",
    "black-eyed susan",
    "silverbush",
    "californian poppy",
    "osteospermum",
    "spring crocus",
    "bearded iris",
    "windflower",
    "tree poppy",
    "gazania",
    "azalea",
    "water lily",
    "rose",
    "thorn apple",
    "morning glory",
    "passion flower",
    "lotus",
    "toad lily",
    "anthurium",
    "frangipani",
    "clematis",
    "hibiscus",
    "columbine",
    "desert-rose",
    "tree mallow",
    "magnolia",
    "cyclamen",
    "watercress",
    "canna lily",
    "hippeastrum",
    "bee balm",
    "ball moss",
    "foxglove",
    "bougainvillea",
    "camellia",
    "mallow",
    "mexican petunia",
    "bromelia",
    "blanket flower",
    "trumpet creeper",
    "blackberry lily",
)
