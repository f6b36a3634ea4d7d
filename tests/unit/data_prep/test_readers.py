"""Each reader against a tiny copy of its dataset in the published layout, whole and broken."""

import hashlib
import importlib
import io
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import data_prep_fixtures as fixtures
import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from data_prep.config import TRAIN_VIEWS
from data_prep.emoji.concepts import load_concepts
from data_prep.emoji.dataset import plan, rows
from data_prep.readers import NAMES, load
from data_prep.readers.base import Dataset, Sample
from speciarl.errors import DataPrepError

PUBLIC = ("cub200", "aircraft", "flowers", "food", "pets", "cars", "caltech101")


def _read(name: str, root: Path, split: str, **options: Any) -> list[Sample]:
    return list(load(name, options).samples(root, split))


def _make(name: str, root: Path) -> Path:
    getattr(fixtures, f"make_{name}")(root)
    if name in ("flowers", "food", "pets"):
        getattr(fixtures, f"make_coop_{name}")(root)
    return root


@pytest.mark.parametrize("name", PUBLIC)
def test_samples_hold_together(tmp_path: Path, name: str) -> None:
    root, dataset = _make(name, tmp_path), load(name)
    about = dataset.about
    assert about.name == name
    ids: dict[str, set[str]] = {}
    labels: dict[str, tuple[str, ...]] = {}
    for split in about.splits:
        samples = list(dataset.samples(root, split))
        assert samples
        ids[split] = {sample.id for sample in samples}
        assert len(ids[split]) == len(samples)
        for sample in samples:
            assert sample.split == split
            assert sample.id.startswith(f"{name}/")
            assert str(root) not in sample.id
            assert sample.label == sample.label_path[-1]
            assert len(sample.label_path) == len(about.levels)
            assert all(part == part.strip() != "" and "_" not in part for part in sample.label_path)
            assert labels.setdefault(sample.class_key, sample.label_path) == sample.label_path
            Image.open(io.BytesIO(sample.picture.read())).verify()
    assert list(dataset.samples(root, about.splits[0])) == list(dataset.samples(root, about.splits[0]))
    for trained, tested in (("train", "test"), ("trainval", "test"), ("train", "val"), ("coop_train", "coop_test")):
        assert not ids.get(trained, set()) & ids.get(tested, set())


@pytest.mark.parametrize("name", PUBLIC)
def test_every_published_count_is_of_a_split(name: str) -> None:
    about = load(name).about
    assert set(about.published_counts) <= set(about.splits)
    assert all(archive.url.startswith("http") and archive.file_name for archive in about.archives)
    assert all(re.fullmatch("[0-9a-f]{32}", archive.md5) for archive in about.archives if archive.md5)


@pytest.mark.parametrize("name", PUBLIC)
def test_unknown_split_and_missing_data_are_named(tmp_path: Path, name: str) -> None:
    dataset = load(name)
    for split, reason in (("dev", r"no split 'dev'; there are "), (dataset.about.splits[0], "is not there|missing")):
        with pytest.raises(DataPrepError, match=reason) as caught:
            next(dataset.samples(tmp_path / "nowhere", split))
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", PUBLIC)
def test_image_that_is_missing_on_disk_is_named_when_it_is_read(tmp_path: Path, name: str) -> None:
    root, dataset = _make(name, tmp_path), load(name)
    sample = next(dataset.samples(root, dataset.about.splits[0]))
    assert sample.picture.path is not None
    sample.picture.path.unlink()
    if name != "caltech101":  # There the images are the list.
        sample = next(dataset.samples(root, dataset.about.splits[0]))
        with pytest.raises(DataPrepError, match=re.escape(str(sample.picture.path))):
            sample.picture.read()


@pytest.mark.parametrize(
    ("name", "top"),
    [
        ("cub200", "CUB_200_2011"),
        ("aircraft", "fgvc-aircraft-2013b"),
        ("aircraft", "fgvc-aircraft-2013b/data"),
        ("food", "food-101"),
        ("caltech101", "101_ObjectCategories"),
    ],
)
def test_root_may_be_the_top_folder_itself(tmp_path: Path, name: str, top: str) -> None:
    root, dataset = _make(name, tmp_path), load(name)
    split = dataset.about.splits[0]
    assert list(dataset.samples(root / top, split)) == list(dataset.samples(root, split))


@pytest.mark.parametrize(
    ("name", "folder"), [("flowers", "flowers-102"), ("pets", "oxford-iiit-pet"), ("cars", "stanford_cars")]
)
def test_folders_that_torchvision_makes_are_found(tmp_path: Path, name: str, folder: str) -> None:
    dataset = load(name)
    _make(name, tmp_path / folder)
    for split in dataset.about.splits:
        assert len(list(dataset.samples(tmp_path, split))) == len(list(dataset.samples(tmp_path / folder, split)))


def test_cub200(tmp_path: Path) -> None:
    root = _make("cub200", tmp_path)
    train, test = _read("cub200", root, "train"), _read("cub200", root, "test")
    assert [sample.label for sample in test] == ["Black footed Albatross", "Indigo Bunting", "Le Conte Sparrow"]
    assert train[0].id == "cub200/001.Black_footed_Albatross/Black_Footed_Albatross_0009_34.jpg"
    assert train[0].class_key == "001.Black_footed_Albatross"
    assert train[0].label_path == ("Black footed Albatross",)
    guessed = _read("cub200", root, "train", last_word_level=True)
    assert guessed[0].label_path == ("Albatross", "Black footed Albatross")
    assert load("cub200", {"last_word_level": True}).about.levels == ("last word", "species")


def test_aircraft(tmp_path: Path) -> None:
    root = _make("aircraft", tmp_path)
    assert [sample.label_path for sample in _read("aircraft", root, "val")] == [
        ("Boeing", "Boeing 737", "737-700"),
        ("McDonnell Douglas", "F/A-18", "F/A-18"),
        ("de Havilland", "Dash 8", "DHC-8-100"),
    ]
    parts = [sample.id for split in ("train", "val") for sample in _read("aircraft", root, split)]
    assert sorted(sample.id for sample in _read("aircraft", root, "trainval")) == sorted(parts)


def test_flowers(tmp_path: Path) -> None:
    root = _make("flowers", tmp_path)
    test = _read("flowers", root, "test")
    assert Counter(sample.label for sample in test) == {"pink primrose": 3, "purple coneflower": 3, "passion flower": 3}
    assert [sample.id for sample in test[:2]] == ["flowers/image_00001.jpg", "flowers/image_00006.jpg"]
    coop = _read("flowers", root, "coop_val")
    assert [(sample.id, sample.label) for sample in coop] == [
        ("flowers/image_00004.jpg", "pink primrose"),
        ("flowers/image_00011.jpg", "purple coneflower"),
        ("flowers/image_00018.jpg", "passion flower"),
    ]
    names = importlib.import_module("data_prep.readers.flowers").NAMES
    assert len(set(names)) == len(names) == 102


def test_food(tmp_path: Path) -> None:
    root = _make("food", tmp_path)
    train = _read("food", root, "train")
    assert [sample.label for sample in train[::3]] == ["Apple pie", "Bibimbap", "Macaroni and cheese"]
    assert train[0].id == "food/apple_pie/1005649.jpg"
    (root / "food-101" / "meta" / "train.txt").unlink()
    assert _read("food", root, "train") == train


def test_pets(tmp_path: Path) -> None:
    root = _make("pets", tmp_path)
    paths = {("cat", "Abyssinian"), ("dog", "english cocker spaniel"), ("cat", "Egyptian Mau")}
    for split in ("trainval", "test", "coop_train", "coop_val", "coop_test"):
        assert {sample.label_path for sample in _read("pets", root, split)} == paths
    elsewhere = tmp_path / "elsewhere.json"
    (root / "split_zhou_OxfordPets.json").rename(elsewhere)
    with pytest.raises(
        DataPrepError, match=r"split_zhou_OxfordPets.json: no such file; .*coop_split; dataset=pets builds"
    ):
        _read("pets", root, "coop_val")
    assert len(_read("pets", root, "coop_val", coop_split=str(elsewhere))) == 3


def test_cars(tmp_path: Path) -> None:
    root = _make("cars", tmp_path)
    train = _read("cars", root, "train")
    assert [sample.label for sample in train[:5]] == list(fixtures.CARS)
    assert train[1].label_path == (
        "Aston Martin",
        "Aston Martin V8 Vantage Coupe",
        "Aston Martin V8 Vantage Coupe 2012",
    )
    assert train[3].label_path[:2] == train[4].label_path[:2]
    assert len({sample.id for split in ("train", "test") for sample in _read("cars", root, split)}) == 15
    # As copies from elsewhere have it.
    (root / "cars_test").rename(root / "outer")
    (root / "cars_test").mkdir()
    (root / "outer").rename(root / "cars_test" / "cars_test")
    (root / "cars_test_annos_withlabels.mat").rename(root / "devkit" / "cars_test_annos_withlabels.mat")
    assert all(sample.picture.read() for sample in _read("cars", root, "test"))


def test_caltech101_offers_a_seeded_split(tmp_path: Path) -> None:
    root = _make("caltech101", tmp_path)
    everything = _read("caltech101", root, "all")
    assert Counter(sample.label for sample in everything) == {"face": 4, "accordion": 3, "crocodile head": 5}
    assert not any("BACKGROUND" in sample.id for sample in everything)
    train, test = (_read("caltech101", root, split, train_per_class=2) for split in ("train", "test"))
    assert Counter(sample.class_key for sample in train) == {"Faces_easy": 2, "accordion": 2, "crocodile_head": 2}
    assert {sample.id for sample in train} | {sample.id for sample in test} == {sample.id for sample in everything}
    # By hand: the order of SHA-256 of "<seed>/<category>/<file>".
    files = [f"image_{number:04d}.jpg" for number in range(1, 6)]
    order = sorted(files, key=lambda file: hashlib.sha256(f"0/crocodile_head/{file}".encode()).hexdigest())
    chosen = {sample.id.split("/")[-1] for sample in train if sample.class_key == "crocodile_head"}
    assert chosen == set(order[:2])
    others = _read("caltech101", root, "train", train_per_class=2, seed=1)
    assert {sample.id for sample in others} != {sample.id for sample in train}
    assert Counter(sample.class_key for sample in _read("caltech101", root, "test")) == dict.fromkeys(
        ("Faces_easy", "accordion", "crocodile_head"), 1
    )


def test_emoji_draws_what_the_emoji_command_writes() -> None:
    views = plan(load_concepts(), TRAIN_VIEWS)["test"]
    written = rows(views, "test", 3, lambda _: None)
    for sample, row, _ in zip(load("emoji", {"seed": 3}).samples(Path(), "test"), written, range(20), strict=False):
        assert sample.picture.read() == row["images"][0]["bytes"]
        assert sample.label == row["reward_model"]["ground_truth"]
        assert list(sample.label_path) == row["extra_info"]["label_path"]
        assert sample.id == f"emoji/{row['extra_info']['sample_id']}"


# What is broken, the split that meets it, and what the message has to say.
Break = Callable[[Path], object]


def _replace(file: str, old: str, new: str) -> Break:
    def change(root: Path) -> None:
        text = (root / file).read_text()
        assert old in text
        (root / file).write_text(text.replace(old, new, 1))

    return change


def _delete(file: str) -> Break:
    return lambda root: (root / file).unlink()


def _bytes(file: str, content: bytes) -> Break:
    return lambda root: (root / file).write_bytes(content)


def _mat(file: str, **variables: Any) -> Break:
    return lambda root: savemat(root / file, variables)


CUB, AIR, FOOD = "CUB_200_2011", "fgvc-aircraft-2013b/data", "food-101"
COOP = {"flowers": "split_zhou_OxfordFlowers.json", "pets": "split_zhou_OxfordPets.json"}
BROKEN: list[tuple[str, str, Break, str]] = [
    ("cub200", "train", _delete(f"{CUB}/classes.txt"), r"classes.txt: No such file"),
    ("cub200", "train", _delete(f"{CUB}/train_test_split.txt"), r"train_test_split.txt: No such file"),
    ("cub200", "train", _replace(f"{CUB}/images.txt", "2 001.", "2"), r"images.txt, row 2: 2 columns expected"),
    ("cub200", "train", _replace(f"{CUB}/images.txt", "2 001", "zwei 001"), r"row 2: a whole number expected.*'zwei'"),
    ("cub200", "train", _replace(f"{CUB}/images.txt", "2 001", "1 001"), r"row 2: 1 is there already in row 1"),
    ("cub200", "train", _replace(f"{CUB}/image_class_labels.txt", "2 1", "2 9"), r"class_labels.txt, row 2: 9 is not"),
    ("cub200", "train", _replace(f"{CUB}/image_class_labels.txt", "2 1\n", ""), r"images.txt, row 2: image 2 is not"),
    ("cub200", "train", _replace(f"{CUB}/train_test_split.txt", "1 0", "1 2"), r"split.txt, row 1: 2 is not one of"),
    ("cub200", "train", _bytes(f"{CUB}/images.txt", b"1 \xff\xfe"), r"images.txt: not UTF-8 text \(byte 2\)"),
    ("aircraft", "val", _delete(f"{AIR}/images_family_val.txt"), r"images_family_val.txt: No such file"),
    ("aircraft", "val", _bytes(f"{AIR}/images_variant_val.txt", b"\n"), r"images_variant_val.txt: no images"),
    ("aircraft", "val", _replace(f"{AIR}/images_variant_val.txt", " 737-700", ""), r"row 1: 2 columns expected"),
    ("aircraft", "val", _replace(f"{AIR}/images_variant_val.txt", "737-700", "737"), r"row 1: the variant '737' is"),
    ("aircraft", "val", _replace(f"{AIR}/images_family_val.txt", "0035310", "1"), r"row 2: image 0035310 is not in"),
    ("flowers", "test", _delete("setid.mat"), r"setid.mat: no such file"),
    ("flowers", "test", _bytes("imagelabels.mat", b"<html>404</html>" * 50), r"imagelabels.mat: not a readable"),
    ("flowers", "test", _bytes("imagelabels.mat", b""), r"imagelabels.mat: not a readable"),
    ("flowers", "test", _mat("imagelabels.mat", other=[1]), r"imagelabels.mat: there is no variable 'labels'"),
    ("flowers", "test", _mat("imagelabels.mat", labels="x"), r"'labels' is not a list of numbers"),
    ("flowers", "test", _mat("imagelabels.mat", labels=[[103] * 21]), r"image 1 has class 103, not 1 to 102"),
    ("flowers", "test", _mat("setid.mat", tstid=[[22]]), r"setid.mat: tstid has image 22, .* 1 to 21"),
    ("flowers", "coop_val", _bytes(COOP["flowers"], b"{"), r"OxfordFlowers.json: not JSON \(line 1"),
    ("flowers", "coop_val", _bytes(COOP["flowers"], b"[]"), r"there is no list 'val'"),
    ("flowers", "coop_val", _bytes(COOP["flowers"], b'{"val": [["a.jpg", "0", "x"]]}'), r"val row 1: \[image, class"),
    ("flowers", "coop_val", _bytes(COOP["flowers"], b'{"val": [["a.jpg", 102, "x"]]}'), r"val row 1: class index 102"),
    ("food", "test", _delete(f"{FOOD}/meta/labels.txt"), r"labels.txt: No such file"),
    ("food", "test", _replace(f"{FOOD}/meta/test.txt", "apple_pie/", "apple_pie"), r"test.txt, row 1: class/number"),
    ("food", "test", _replace(f"{FOOD}/meta/test.txt", "apple_pie", "apples"), r"row 1: the class 'apples' is not in"),
    ("food", "test", _replace(f"{FOOD}/meta/labels.txt", "Bibimbap\n", ""), r"classes.txt has 3 rows, labels.txt 2"),
    (
        "food",
        "coop_test",
        _replace(f"{FOOD}/split_zhou_Food101.json", "bibimbap/1006652", "stew/1"),
        r"test row 3: .*stew",
    ),
    ("pets", "test", _replace("annotations/test.txt", " 1 1 1", " 1 1"), r"test.txt, row 1: 4 columns expected"),
    ("pets", "test", _replace("annotations/test.txt", " 1 1 1", " 38 1 1"), r"row 1: 38 is not one of 1 to 37"),
    ("pets", "test", _replace("annotations/test.txt", " 13 2 7", " 13 3 7"), r"row 3: 3 is not one of 1, 2"),
    ("pets", "test", _replace("annotations/test.txt", "Abyssinian_2", "Abyssinian"), r"row 1: breed_number expected"),
    (
        "pets",
        "coop_test",
        _replace(COOP["pets"], '["Abyssinian_2.jpg", 0', '["Abyssinian_2.jpg", 37'),
        r"test row 1: cl",
    ),
    ("cars", "train", _delete("devkit/cars_train_annos.mat"), r"cars_train_annos.mat: no such file"),
    ("cars", "test", _delete("cars_test_annos_withlabels.mat"), r"annos_withlabels.mat: no such file"),
    ("cars", "train", _bytes("devkit/cars_meta.mat", b"\0" * 300), r"cars_meta.mat: not a readable MATLAB file"),
    (
        "cars",
        "test",
        lambda root: shutil.copy(root / "devkit/cars_test_annos.mat", root / "cars_test_annos_withlabels.mat"),
        r"no class or fname; is it the file with the labels",
    ),
    (
        "cars",
        "train",
        _mat("devkit/cars_train_annos.mat", annotations=fixtures.car_annotations([("1.jpg", 1), ("2.jpg", 6)])),
        r"cars_train_annos.mat, row 2: class 6 is not 1 to 5",
    ),
    (
        "cars",
        "train",
        _mat("devkit/cars_meta.mat", class_names=np.array([["Audi S4 Sedan 2012", "Audi S4"]], dtype=object)),
        r"cars_meta.mat, class 2: 'Audi S4' does not end with a year",
    ),
    (
        "caltech101",
        "all",
        lambda root: (root / "101_ObjectCategories" / "empty").mkdir(),
        r"empty: no image_\*.jpg in it",
    ),
]


@pytest.mark.parametrize(("name", "split", "damage", "reason"), BROKEN)
def test_broken_file_gives_one_line_with_its_place(
    tmp_path: Path, name: str, split: str, damage: Break, reason: str
) -> None:
    root = _make(name, tmp_path)
    damage(root)
    with pytest.raises(DataPrepError, match=reason) as caught:
        _read(name, root, split)
    assert str(root) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_registry_names_what_there_is() -> None:
    assert set(PUBLIC) | {"emoji", "image_folder", "manifest", "hub"} == set(NAMES)
    for name in NAMES:
        dataset: Dataset = load(name)
        assert dataset.about.name == name
    with pytest.raises(DataPrepError, match=r"no dataset 'cub_200'; did you mean cub200\?$"):
        load("cub_200")
    with pytest.raises(DataPrepError, match=r"no dataset 'zzz'; known: aircraft, .*image_folder"):
        load("zzz")
    with pytest.raises(DataPrepError, match=r"caltech101 has no option 'sed'; did you mean seed\?$"):
        load("caltech101", {"sed": 1})
    with pytest.raises(DataPrepError, match=r"caltech101 has no option 'zzz'; known: .*train_per_class"):
        load("caltech101", {"zzz": 1})
    with pytest.raises(DataPrepError, match=r"aircraft has no option 'seed'; there are none"):
        load("aircraft", {"seed": 1})
    with pytest.raises(DataPrepError, match=r"caltech101: option seed: .*integer.*'one'"):
        load("caltech101", {"seed": "one"})


def test_asking_for_a_dataset_imports_no_heavy_library() -> None:
    code = (
        "import sys; from data_prep.readers import NAMES, load; [load(name).about for name in NAMES]; "
        "print([name for name in ('scipy', 'datasets', 'torch', 'pyarrow', 'requests') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (ran.stdout.strip(), ran.stderr) == ("[]", "")


def test_json_of_food_with_another_form_is_refused(tmp_path: Path) -> None:
    root = _make("food", tmp_path)
    meta = root / "food-101" / "meta"
    (meta / "test.txt").unlink()
    for content, reason in (
        ("{", "not JSON"),
        ("[]", "expected"),
        (json.dumps({"stew": ["stew/1"]}), "the class 'stew' is not in classes.txt"),
        (json.dumps({"apple_pie": "apple_pie/1"}), "not a list of names"),
    ):
        (meta / "test.json").write_text(content)
        with pytest.raises(DataPrepError, match=reason):
            _read("food", root, "test")
