"""The user's own data: image folders, manifests and Hugging Face datasets."""

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import data_prep_fixtures as fixtures
import datasets
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_prep.readers import load
from data_prep.readers.base import Sample
from speciarl.errors import DataPrepError


def _read(reader: str, root: Path, split: str, /, **options: Any) -> list[Sample]:
    samples = list(load(reader, options).samples(root, split))
    assert len({sample.id for sample in samples}) == len(samples)
    assert all(str(root) not in sample.id for sample in samples)
    assert all(sample.label == sample.label_path[-1] and sample.split == split for sample in samples)
    return samples


def _fails(reason: str, reader: str, root: Path, split: str, /, **options: Any) -> None:
    with pytest.raises(DataPrepError, match=reason) as caught:
        list(load(reader, options).samples(root, split))
    assert "\n" not in str(caught.value)


# Image folder


def test_image_folder_with_and_without_splits(tmp_path: Path) -> None:
    fixtures.make_image_folder(tmp_path / "a")
    train = _read("image_folder", tmp_path / "a", "train", name="mine")
    assert Counter(sample.label for sample in train) == {"blue jay": 3, "house-finch": 3, "pike": 3}
    assert train[0].id == "mine/train/01_blue_jay/1.jpg"
    assert train[0].class_key == "01_blue_jay"
    fixtures.make_image_folder(tmp_path / "b", splits=())
    everything = _read("image_folder", tmp_path / "b", "all", verbatim=True)
    assert [sample.label for sample in everything[::3]] == ["01_blue_jay", "02_house-finch", "03_pike"]
    assert [sample.picture.read() for sample in everything[:2]] == [
        fixtures.jpeg("/01_blue_jay/1"),
        fixtures.jpeg("/01_blue_jay/2"),
    ]


def test_image_folder_with_nested_classes(tmp_path: Path) -> None:
    fixtures.make_image_folder(tmp_path, nested=True)
    paths = {sample.label_path for sample in _read("image_folder", tmp_path, "test", hierarchy=True)}
    assert paths == {("birds", "blue jay"), ("birds", "house-finch"), ("fish", "pike")}
    assert load("image_folder", {"hierarchy": True}).about.levels == ()
    _fails("birds/01_blue_jay/1.jpg: 2 directories deep; set options.hierarchy=true", "image_folder", tmp_path, "test")


def test_image_folder_order_does_not_depend_on_the_file_system(tmp_path: Path) -> None:
    for folder, names in (("a", "bca"), ("b", "cab")):
        for name in names:
            for image in reversed(names):
                file = tmp_path / folder / name / f"{image}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(b"")
    orders = [[sample.id for sample in _read("image_folder", tmp_path / folder, "all")] for folder in "ab"]
    assert orders[0] == orders[1] == sorted(orders[0])


def test_image_folder_tells_what_it_cannot_take(tmp_path: Path) -> None:
    _fails("nowhere/train: no such directory", "image_folder", tmp_path / "nowhere", "train")
    fixtures.make_image_folder(tmp_path)
    _fails(r"val: no such directory; .* holds test, train", "image_folder", tmp_path, "val")
    notes = tmp_path / "train" / "01_blue_jay" / "notes.txt"
    notes.write_text("x")
    (tmp_path / "train" / ".hidden").mkdir()
    (tmp_path / "train" / ".DS_Store").write_text("x")
    _fails("notes.txt: not an image by its suffix", "image_folder", tmp_path, "train")
    assert len(_read("image_folder", tmp_path, "train", ignore_other_files=True)) == 9
    notes.unlink()
    (tmp_path / "train" / "loose.jpg").write_bytes(b"")
    _fails("loose.jpg: an image outside of any class", "image_folder", tmp_path, "train")
    (tmp_path / "train" / "loose.jpg").unlink()
    (tmp_path / "train" / "__").mkdir()
    (tmp_path / "train" / "__" / "1.jpg").write_bytes(b"")
    _fails("__/1.jpg: a directory's name leaves no label", "image_folder", tmp_path, "train")
    (tmp_path / "empty").mkdir()
    _fails("empty: no images in it", "image_folder", tmp_path / "empty", "all")


# Manifest


@pytest.mark.parametrize("name", ["manifest.csv", "rows.jsonl"])
def test_manifest_is_read(tmp_path: Path, name: str) -> None:
    file = fixtures.make_manifest(tmp_path, name)
    for root, options in ((tmp_path, {}), (file, {}), (tmp_path, {"file": name})):
        train = _read("manifest", root, "train", **options)
        assert [sample.label_path for sample in train] == [("bird", "jay", "blue jay")] * 2 + [("fish", "pike")] * 2
        assert train[0].id == "manifest/pictures/train_blue jay_1.jpg"
        assert train[0].picture.read() == fixtures.jpeg("pictures/train_blue jay_1.jpg")
    assert len(_read("manifest", tmp_path, "all")) == 8
    _fails(rf"{name}: no row with split 'val'; there are test, train", "manifest", tmp_path, "val")


def test_manifest_needs_no_more_than_image_and_label(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_bytes(
        '﻿picture;x,class\r\n"a, b.jpg","Smith\'s ""jay"""\r\n\r\nc.jpg, pike \r\n'.encode()
    )
    samples = _read("manifest", tmp_path, "all", image_column="picture;x", label_column="class")
    assert [(sample.id, sample.label_path) for sample in samples] == [
        ("manifest/a, b.jpg", ('Smith\'s "jay"',)),
        ("manifest/c.jpg", ("pike",)),
    ]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("m.csv", "image,label\na.jpg\n", "m.csv, row 2: 2 columns expected"),
        ("m.csv", "image,label\na.jpg,b,c\n", "m.csv, row 2: 2 columns expected"),
        ("m.csv", 'image,label\n"a.jpg,b\n', "m.csv, row 2: unexpected end of data"),
        ("m.csv", "picture,label\na.jpg,b\n", "m.csv, row 2: there is no column 'image', only picture, label"),
        ("m.csv", "image,label\na.jpg,b\nc.jpg, \n", "m.csv, row 3: label is ' ', text expected"),
        ("m.csv", "image,label\n,b\n", "m.csv, row 2: image is '', text expected"),
        ("m.csv", "image,label\n", "m.csv: no rows"),
        ("m.csv", "", "m.csv: no rows"),
        ("m.csv", b"image,label\na.jpg,\xe9\n", "m.csv: not UTF-8 text"),
        ("m.csv", "image,label,label_path\na.jpg,b,a > c\n", "row 2: label_path ends with 'c', not with the label 'b'"),
        ("m.csv", "image,label,label_path\na.jpg,b,> b\n", r"row 2: label_path is \['', 'b'\]"),
        ("m.jsonl", '{"image": "a.jpg", "label": "b"}\n{"image": \n', "m.jsonl, row 2: not JSON"),
        ("m.jsonl", '\n["a.jpg", "b"]\n', "m.jsonl, row 2: a JSON object expected"),
        ("m.jsonl", '{"image": "a.jpg", "label": 3.5}', "m.jsonl, row 1: label is 3.5, text expected"),
        ("m.jsonl", '{"image": "a.jpg", "label": null}', "m.jsonl, row 1: label is None, text expected"),
        ("m.jsonl", '{"image": "a.jpg"}', "m.jsonl, row 1: there is no column 'label', only image"),
        ("m.jsonl", '{"image": "a.jpg", "label": "b", "label_path": [1, "b"]}', "row 1: label_path is"),
        ("m.jsonl", '{"image": "a.jpg", "label": "b", "split": 1}', "row 1: split is 1, text expected"),
        ("m.txt", "", "one .csv or .jsonl expected, there is none"),
    ],
)
def test_manifest_names_file_row_and_column_of_a_fault(
    tmp_path: Path, name: str, content: str | bytes, reason: str
) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    _fails(reason, "manifest", tmp_path, "all")


def test_manifest_of_several_or_none_is_asked_for(tmp_path: Path) -> None:
    _fails("nowhere: no such folder or file", "manifest", tmp_path / "nowhere", "all")
    _fails("gone.csv: No such file", "manifest", tmp_path, "all", file="gone.csv")
    for name in ("a.csv", "b.jsonl", "c.txt"):
        (tmp_path / name).write_text("")
    _fails("there is a.csv, b.jsonl; name one with options.file", "manifest", tmp_path, "all")
    _fails(r"c.txt: the name has to end with .csv or .jsonl", "manifest", tmp_path / "c.txt", "all")


_WORD = st.text(min_size=1, max_size=8).map(lambda text: " ".join(text.split())).filter(bool)
_NAMES = st.lists(_WORD.filter(lambda text: ">" not in text and "\0" not in text), min_size=1, max_size=3)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.lists(_NAMES, min_size=1, max_size=4))
def test_manifest_gives_back_any_names(tmp_path: Path, paths: list[list[str]]) -> None:
    table = [{"image": f"{row}.jpg", "label": path[-1], "label_path": path} for row, path in enumerate(paths)]
    lines, sheet = tmp_path / "m.jsonl", tmp_path / "m.csv"
    lines.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in table), encoding="utf-8")
    with sheet.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, ["image", "label", "label_path"])
        writer.writeheader()
        writer.writerows({**row, "label_path": " > ".join(row["label_path"])} for row in table)
    for file in (lines, sheet):
        assert [list(sample.label_path) for sample in _read("manifest", file, "all", verbatim=True)] == paths


# Hugging Face


@pytest.mark.parametrize("saved", [False, True])
def test_hub_directory_is_read_with_its_encoded_images(tmp_path: Path, saved: bool) -> None:
    fixtures.make_hub(tmp_path, saved)
    train = _read("hub", tmp_path, "train", name="birds")
    assert [sample.label for sample in train] == ["blue jay", "northern pike"] * 2
    assert [sample.id for sample in train] == [f"birds/train/{row}" for row in range(4)]
    assert [sample.picture.read() for sample in train] == [fixtures.jpeg(f"hub/train/{row}") for row in range(4)]
    assert [sample.label for sample in _read("hub", tmp_path, "test", verbatim=True)] == ["blue_jay", "northern_pike"]
    _fails(f"{tmp_path}: .*nix", "hub", tmp_path, "nix")
    _fails("no column 'picture', only image, label", "hub", tmp_path, "train", image_column="picture")
    _fails("no column 'order', only image, label", "hub", tmp_path, "train", parent_columns=["order"])


def test_hub_columns_may_be_plain_bytes_and_text_with_parents(tmp_path: Path) -> None:
    rows = {"jpg": [fixtures.jpeg("a"), fixtures.jpeg("b")], "kind": ["fish", "bird"], "name": ["pike ", "Jay_x"]}
    datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "train.parquet")
    options = {"image_column": "jpg", "label_column": "name", "parent_columns": ("kind",)}
    samples = _read("hub", tmp_path, "train", **options)
    assert [sample.label_path for sample in samples] == [("fish", "pike"), ("bird", "Jay_x")]
    assert [sample.picture.read() for sample in samples] == rows["jpg"]
    assert load("hub", options).about.levels == ("kind", "name")


def test_hub_dataset_without_splits_is_all(tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"image": [fixtures.jpeg("a")], "label": ["pike"]}).save_to_disk(tmp_path)
    assert [sample.label for sample in _read("hub", tmp_path, "all")] == ["pike"]
    _fails("one dataset without splits; ask for the split 'all'", "hub", tmp_path, "train")


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ({"image": [b"x"], "label": [3]}, "row 0: label is 3: neither text nor a ClassLabel"),
        ({"image": [b"x", b"y"], "label": ["a", " "]}, "row 1: label is empty"),
        ({"image": [None, b"y"], "label": ["a", "b"]}, "row 0: image holds no encoded image"),
    ],
)
def test_hub_names_the_row_of_a_fault(tmp_path: Path, rows: dict[str, list[Any]], reason: str) -> None:
    features = datasets.Features(
        {"image": datasets.Value("binary"), "label": datasets.Value("int64" if rows["label"] == [3] else "string")}
    )
    saved = datasets.DatasetDict({"train": datasets.Dataset.from_dict(rows, features=features)})
    saved.save_to_disk(tmp_path)
    _fails(reason, "hub", tmp_path, "train")


def test_hub_split_without_rows_is_named(tmp_path: Path) -> None:
    fixtures.make_hub(tmp_path)
    nothing = datasets.Dataset.from_dict({"image": [], "label": []}).cast(
        datasets.Features({"image": datasets.Value("binary"), "label": datasets.Value("string")})
    )
    nothing.to_parquet(tmp_path / "empty" / "train.parquet")
    _fails("the split train has no rows|cannot be loaded", "hub", tmp_path / "empty", "train")


def test_hub_row_without_a_label_is_named(tmp_path: Path) -> None:
    features = datasets.Features({"image": datasets.Value("binary"), "label": datasets.ClassLabel(names=["a"])})
    content = datasets.Dataset.from_dict({"image": [b"x"], "label": [-1]}, features=features)
    content.save_to_disk(tmp_path)
    _fails("row 0: label is -1: this row has no label", "hub", tmp_path, "all")


def test_hub_file_that_is_damaged_is_named(tmp_path: Path) -> None:
    fixtures.make_hub(tmp_path)
    file = tmp_path / "data" / "train-00000-of-00001.parquet"
    file.write_bytes(file.read_bytes()[:200])
    _fails(f"{tmp_path}", "hub", tmp_path, "train")
    _fails("nowhere: no such directory; set options.repo=OWNER/NAME", "hub", tmp_path / "nowhere", "train")


def test_hub_that_cannot_be_reached_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fake_load(*_: object, **__: object) -> None:
        raise ConnectionError("Couldn't reach 'owner/birds' on the Hub\nand a second line")

    monkeypatch.setattr(datasets, "load_dataset", fake_load)
    reason = r"^owner/birds: Couldn't reach 'owner/birds' on the Hub; if .* offline, run `hf download .*as the root"
    _fails(reason, "hub", tmp_path, "train", repo="owner/birds")


def test_hub_is_asked_for_the_revision_and_subset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def fake_load(*names: Any, **options: Any) -> datasets.Dataset:
        asked.append((*names, options))
        return datasets.Dataset.from_dict({"image": [fixtures.jpeg("a")], "label": ["pike"]})

    monkeypatch.setattr(datasets, "load_dataset", fake_load)
    assert len(_read("hub", tmp_path, "train", repo="owner/birds", subset="small", revision="abc")) == 1
    assert asked == [("owner/birds", "small", {"split": "train", "revision": "abc"})]
    about = load("hub", {"repo": "owner/birds", "revision": "abc"}).about
    assert (about.title, about.version) == ("owner/birds", "abc")
