"""Copies of data sets from elsewhere: doubled folders, splits as tables, Stanford Cars without its devkit."""

import csv
from pathlib import Path

import data_prep_fixtures as fixtures
import pytest

from data_prep.readers import load
from data_prep.readers.cars import car_path
from speciarl.errors import DataPrepError

IMAGE_FOLDERS = {
    "cub200": "images", "aircraft": "images", "flowers": "jpg", "food": "images", "pets": "images",
    "cars": "cars_train",
}  # fmt: skip


@pytest.mark.parametrize("name", IMAGE_FOLDERS)
def test_a_folder_inside_one_of_the_same_name_is_looked_into(tmp_path: Path, name: str) -> None:
    getattr(fixtures, f"make_{name}")(tmp_path)
    reader = load(name)
    split = "trainval" if name == "pets" else "train"
    as_published = list(reader.samples(tmp_path, split))
    (images,) = (folder for folder in tmp_path.rglob(IMAGE_FOLDERS[name]) if folder.is_dir())
    images.rename(images.with_name("moved"))
    images.mkdir()
    images.with_name("moved").rename(images / images.name)
    doubled = list(reader.samples(tmp_path, split))
    assert [sample.id for sample in doubled] == [sample.id for sample in as_published]
    assert all(sample.picture.read() for sample in doubled)


def test_the_top_folder_of_an_archive_may_be_doubled_too(tmp_path: Path) -> None:
    fixtures.make_cub200(tmp_path / "plain")
    (tmp_path / "twice" / "CUB_200_2011").mkdir(parents=True)
    (top,) = (file.parent for file in (tmp_path / "plain").rglob("images.txt"))
    top.rename(tmp_path / "twice" / "CUB_200_2011" / "CUB_200_2011")
    assert [sample.picture.read() for sample in load("cub200").samples(tmp_path / "twice", "train")]


@pytest.mark.parametrize("name", ["flowers", "food", "pets"])
def test_coops_splits_are_read_from_a_table_as_well(tmp_path: Path, name: str) -> None:
    getattr(fixtures, f"make_{name}")(tmp_path)
    getattr(fixtures, f"make_coop_{name}")(tmp_path)
    splits = ("coop_train", "coop_val", "coop_test")
    expected = {split: list(load(name).samples(tmp_path, split)) for split in splits}
    (listing,) = tmp_path.rglob("split_zhou_*.json")
    with listing.with_name("split_coop.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["", "filename", "split"])
        for split, samples in expected.items():
            for sample in samples:
                image = sample.id.rpartition("/")[2]
                folder = sample.label if name == "flowers" else sample.class_key
                table.writerow([0, f"{folder}/{image}", split.removeprefix("coop_")])
    listing.unlink()
    assert {split: list(load(name).samples(tmp_path, split)) for split in splits} == expected


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ("image,split\na.jpg,train\n", "row 2: the columns filename and split expected"),
        ("filename,split\nno flower/a.jpg,train\n", "row 2: there is no class 'no flower'"),
    ],
)
def test_a_table_of_splits_of_another_form(tmp_path: Path, table: str, told: str) -> None:
    fixtures.make_flowers(tmp_path)
    (tmp_path / "mine.csv").write_text(table)
    reader = load("flowers", {"coop_split": str(tmp_path / "mine.csv")})
    with pytest.raises(DataPrepError, match=told):
        list(reader.samples(tmp_path, "coop_train"))


def test_cars_are_read_from_a_copy_of_the_hub_and_from_directories(tmp_path: Path) -> None:
    names = list(fixtures.CARS)
    levels = {name: car_path(name) for name in names}
    fixtures.make_hub_cars(tmp_path / "hub")
    for split in ("train", "test"):
        for name in names:
            folder = tmp_path / "kaggle" / "car_data" / "car_data" / split / name.replace("/", "-")
            folder.mkdir(parents=True)
            (folder / "1.jpg").write_bytes(fixtures.jpeg(f"{split}/{name}"))
    for root in (tmp_path / "hub", tmp_path / "kaggle"):
        found = list(load("cars").samples(root, "train"))
        assert {sample.label: sample.label_path for sample in found} == levels
        assert {sample.label: sample.picture.read() for sample in found} == {
            name: fixtures.jpeg(f"train/{name}") for name in names
        }
        assert len({sample.id for sample in found}) == len(names)
    made = ("2012 Aston Martin V8 Vantage Coupe", "am general hummer suv 2000", "2012 Fiat 500 Abarth")
    fixtures.make_hub_cars(tmp_path / "others", made)
    assert [sample.label_path for sample in load("cars").samples(tmp_path / "others", "test")] == [
        ("Aston Martin", "Aston Martin V8 Vantage Coupe", "Aston Martin V8 Vantage Coupe 2012"),
        ("am general", "am general hummer suv", "am general hummer suv 2000"),
        ("Fiat", "Fiat 500 Abarth", "Fiat 500 Abarth 2012"),
    ]
    (tmp_path / "other" / "train" / "cat").mkdir(parents=True)
    (tmp_path / "other" / "train" / "cat" / "1.jpg").write_bytes(fixtures.jpeg("cat"))
    with pytest.raises(DataPrepError, match="'cat' does not end with a year; is this Stanford Cars"):
        list(load("cars").samples(tmp_path / "other", "train"))
