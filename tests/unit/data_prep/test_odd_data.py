"""What people's own files bring along, kind by kind: labels that name nothing, names that cannot be written, odd
pictures, words that Hydra does not take."""

import csv
import io
import json
import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import data_prep_fixtures as fixtures
import datasets
import pytest
from PIL import Image

from data_prep.checks.validate import check
from data_prep.compose import settings
from data_prep.config import BuildConfig
from data_prep.pipeline.build import build
from data_prep.pipeline.report import Report
from data_prep.readers import formats, load
from data_prep.readers.class_names import is_number
from speciarl.errors import DataPrepError


def folder_of(root: Path, classes: dict[str, int], suffix: str = ".jpg") -> Path:
    """ROOT/CLASS/N.SUFFIX, each another picture."""
    for name, count in classes.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            (root / name / f"{number}{suffix}").write_bytes(fixtures.jpeg(f"{name}/{number}"))
    return root


def run(root: Path, out: Path, *words: str, dataset: str = "image_folder") -> Report:
    plain = [f"dataset={dataset}", f"root={root}", f"out={out}", "name=mine", "splits.train=[all]", "splits.test=[]"]
    config = settings([*plain, *words])
    assert isinstance(config, BuildConfig)
    return build(config)


def refusal(root: Path, out: Path, *words: str, dataset: str = "image_folder") -> str:
    with pytest.raises(DataPrepError) as caught:
        run(root, out, *words, dataset=dataset)
    assert "\n" not in str(caught.value)
    assert not list(out.glob("*.parquet"))
    return str(caught.value)


def labels(root: Path, split: str = "all", /, reader: str = "image_folder", **options: Any) -> Counter[str]:
    return Counter(sample.label for sample in load(reader, options).samples(root, split))


# Labels that read the same


@pytest.mark.parametrize("pair", [("AT&T", "AT T"), ("rose", "rose!"), ("Cat", "cat"), ("01_Cat", "02_Cat")])
def test_labels_that_read_the_same_are_refused(tmp_path: Path, pair: tuple[str, str]) -> None:
    root = folder_of(tmp_path / "raw", dict.fromkeys((*pair, "dog"), 1))
    assert "read the same once normalised; rename or exclude one (select.exclude)" in refusal(root, tmp_path / "out")
    assert run(root, tmp_path / "out", f'select.exclude=["{pair[0]}"]').files["train"].rows >= 1


def test_labels_that_differ_in_marks_or_signs_are_kept_apart(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "raw", dict.fromkeys(("C", "C++", "C#", "काल", "कुल"), 1))
    assert run(root, tmp_path / "out").files["train"].rows == 5


def test_one_name_at_two_places_of_the_hierarchy_is_no_ambiguity_without_a_taxonomy(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "raw", {"bird/crane": 1, "machine/crane": 1})
    hierarchy = "options.hierarchy=true"
    assert "two classes are read as the same label" in refusal(root, tmp_path / "out", hierarchy)
    assert run(root, tmp_path / "out", hierarchy, "taxonomy=false").files["train"].rows == 2


# Labels that name nothing


def test_class_directories_that_are_numbers_are_named_by_a_file_or_refused(tmp_path: Path) -> None:
    root = folder_of(tmp_path, {"1": 1, "10": 2, "21": 1})
    with pytest.raises(
        DataPrepError, match=r"class '1' is a number.*cat_to_name\.json.*options\.verbatim=true"
    ) as caught:
        labels(root)
    assert "\n" not in str(caught.value)
    assert labels(root, verbatim=True) == {"1": 1, "10": 2, "21": 1}
    names = root / "cat_to_name.json"
    names.write_text(json.dumps({"1": "pink primrose", "10": "globe thistle"}))
    with pytest.raises(DataPrepError, match=r"cat_to_name\.json: it has no name for the class '21'"):
        labels(root)
    names.write_text(json.dumps({"1": "pink primrose", "10": "globe thistle", "21": "fire lily", "22": "more"}))
    assert labels(root) == {"pink primrose": 1, "globe thistle": 2, "fire lily": 1}


@pytest.mark.parametrize(
    ("name", "content", "first"),
    [
        ("classes.txt", "0 cat\n1 dog\n", 0),
        ("classes.txt", "cat\ndog\n", 0),
        ("labels.txt", "cat\ndog\n", 1),
        ("names.json", '["cat", "dog"]', 1),
        ("class_names.txt", "1: cat\n2: dog\n", 1),
    ],
)
def test_names_files_of_many_forms_are_read(tmp_path: Path, name: str, content: str, first: int) -> None:
    root = folder_of(tmp_path, {str(first): 1, str(first + 1): 2})
    (root / name).write_text(content)
    assert labels(root) == {"cat": 1, "dog": 2}


@pytest.mark.parametrize("classes", [("1", "2"), ("2",), ("1", "4")])
def test_a_list_of_names_whose_first_number_nobody_knows_is_refused(tmp_path: Path, classes: tuple[str, ...]) -> None:
    root = folder_of(tmp_path, dict.fromkeys(classes, 1))
    (root / "classes.txt").write_text("cat\ndog\nfox\n")
    with pytest.raises(
        DataPrepError, match=r"3 names for classes .*: is the first one 0 or 1\? Write each number before"
    ):
        labels(root)


NAMELESS = ["1.0", "-1", "007", "class_3", "Class 12", "label-4", "n01440764", "N02085620", "٣"]
"""Of tables with gaps (pandas), of exports, of ImageNet, in other digits."""


@pytest.mark.parametrize("label", NAMELESS)
def test_labels_in_other_forms_that_name_nothing_are_refused(tmp_path: Path, label: str) -> None:
    root = folder_of(tmp_path / "raw", {label: 1, "cat": 1})
    (tmp_path / "m.csv").write_text(f"image,label\na.jpg,{label}\nb.jpg,cat\n")
    for reader, place in (("image_folder", root), ("manifest", tmp_path / "m.csv")):
        with pytest.raises(DataPrepError, match="is a number, which names nothing"):
            labels(place, reader=reader)
        assert labels(place, reader=reader, verbatim=True).total() == 2
    assert is_number(label)  # as the Hub's reader asks


@pytest.mark.parametrize("label", ["737-700", "C-130", "3 series", "Class act", "1.5 litre", "7up", "n1", "cat 5 e"])
def test_names_with_numbers_in_them_are_names(tmp_path: Path, label: str) -> None:
    assert labels(folder_of(tmp_path, {label: 1}))[label] == 1


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("LOC_synset_mapping.txt", "n01440764 tench\nn02085620 Chihuahua\n"),
        ("imagenet_class_index.json", '{"0": ["n01440764", "tench"], "151": ["n02085620", "Chihuahua"]}'),
        ("cat_to_name.json", '{"n01440764": "tench", "N02085620": "Chihuahua"}'),
    ],
)
def test_ids_of_wordnet_are_named_by_a_file(tmp_path: Path, name: str, content: str) -> None:
    root = folder_of(tmp_path, {"n01440764": 1, "n02085620": 2})
    (root / name).write_text(content)
    assert labels(root) == {"tench": 1, "Chihuahua": 2}


def test_numbers_in_other_forms_are_named_by_the_same_files(tmp_path: Path) -> None:
    root = folder_of(tmp_path, {"class_0": 1, "class_1": 2})
    (root / "classes.txt").write_text("cat\ndog\n")
    assert labels(root) == {"cat": 1, "dog": 2}
    (root / "n01440764").mkdir()
    (root / "n01440764" / "0.jpg").write_bytes(fixtures.jpeg("t"))
    with pytest.raises(DataPrepError, match=r"classes\.txt: a list, but classes such as 'n01440764'; write each"):
        labels(root)


def test_splits_of_numbers_find_the_names_beside_them(tmp_path: Path) -> None:
    folder_of(tmp_path / "train", {"001": 1})
    (tmp_path / "classes.txt").write_text("001 Black-footed Albatross\n")
    assert labels(tmp_path, "train") == {"Black-footed Albatross": 1}


def test_numbers_in_a_manifest_are_named_or_refused(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("image,label\na.jpg,3\nb.jpg,4\n")
    with pytest.raises(DataPrepError, match="class '3' is a number"):
        labels(tmp_path, reader="manifest")
    assert labels(tmp_path, reader="manifest", verbatim=True) == {"3": 1, "4": 1}
    (tmp_path / "classes.json").write_text('{"3": "lion", "4": "tiger"}')
    assert labels(tmp_path, reader="manifest", file="m.csv") == {"lion": 1, "tiger": 1}
    (tmp_path / "m.jsonl").write_text('{"image": "a.jpg", "label": 3}\n')
    assert labels(tmp_path, reader="manifest", file="m.jsonl") == {"lion": 1}


def test_numbers_as_names_of_a_class_label_are_refused(tmp_path: Path) -> None:
    kinds = datasets.Features({"image": datasets.Value("binary"), "label": datasets.ClassLabel(names=["0", "1"])})
    table = datasets.Dataset.from_dict({"image": [fixtures.jpeg("a")], "label": [1]}, features=kinds)
    table.save_to_disk(tmp_path / "saved")
    with pytest.raises(DataPrepError, match="class '0' is a number"):
        labels(tmp_path / "saved", reader="hub")
    assert labels(tmp_path / "saved", reader="hub", verbatim=True) == {"1": 1}
    text = datasets.Dataset.from_dict({"image": [fixtures.jpeg("a")], "label": ["7"]})
    text.save_to_disk(tmp_path / "text")
    with pytest.raises(DataPrepError, match=r"row 0: label is '7', a number, which names nothing"):
        labels(tmp_path / "text", reader="hub")


@pytest.mark.parametrize("name", ["None", "unknown", "N-A", "n/a", "NaN", "I don't know", "Unidentified."])
def test_labels_that_are_abstentions_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.jpg").write_bytes(fixtures.jpeg("a"))
    (tmp_path / "b.jpg").write_bytes(fixtures.jpeg("b"))
    with (tmp_path / "m.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "label"), ("a.jpg", name), ("b.jpg", "lion")])
    told = refusal(tmp_path / "m.csv", tmp_path / "out", dataset="manifest")
    assert "is what a model says that does not know; rename the class" in told
    report = run(tmp_path / "m.csv", tmp_path / "out", "on_broken=skip", dataset="manifest")
    assert report.files["train"].rows == 1
    assert [problem.kind.value for problem in report.problems] == ["label that declines to answer"]


def test_an_abstention_above_the_label_is_refused_too(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "raw", {"unknown/crane": 1, "bird/jay": 1})
    assert "'unknown' is what a model says" in refusal(root, tmp_path / "out", "options.hierarchy=true")


# Pictures


def test_nothing_is_passed_over_in_silence(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "raw", {"cat": 2, "dog": 1})
    (root / "cat" / "notes.txt").write_text("x")
    (root / "cat" / "clip.mp4").write_bytes(b"x")
    report = run(root, tmp_path / "out", "options.ignore_other_files=true")
    assert [(p.where, p.detail) for p in report.problems] == [("cat", "no images by their suffix: 1 x .mp4, 1 x .txt")]
    (root / "bird").mkdir()
    told = refusal(root, tmp_path / "none", "options.ignore_other_files=true")
    assert "bird: a class directory without an image" in told
    assert "check_counts=warn" in told
    report = run(root, tmp_path / "out", "options.ignore_other_files=true", "check_counts=warn")
    assert report.files["train"].rows == 3


@pytest.mark.parametrize("suffix", [".jfif", ".JPE", ".avif", ".jp2"])
def test_what_pillow_reads_is_a_picture(tmp_path: Path, suffix: str) -> None:
    root = folder_of(tmp_path / "raw", {"cat": 1})
    kind = {".avif": "AVIF", ".jp2": "JPEG2000"}.get(suffix, "JPEG")
    (root / "dog").mkdir()
    Image.new("RGB", (40, 30), "red").save(root / "dog" / f"1{suffix}", kind)
    assert run(root, tmp_path / "out").files["train"].rows == 2


FOREIGN = {
    ".heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC picture, which Pillow does not read here"),
    ".HIF": (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heix", "a HEIC picture, which Pillow does not read here"),
    ".jxl": (b"\xff\x0a\0\0", "a JPEG XL picture, which Pillow does not read here; convert it to JPEG or PNG"),
    ".svg": (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "a SVG picture"),
    ".CR2": (b"II*\0\x10\0\0\0CR\x02\0", "a camera's raw picture"),
}
"""Suffix -> first bytes of such a file, and what is said of it."""
without_heif = pytest.mark.skipif(find_spec("pillow_heif") is not None, reason="pillow-heif is installed")


@without_heif
@pytest.mark.parametrize("suffix", [".heic", ".jxl"])
def test_pictures_that_pillow_does_not_read_are_told_with_the_remedy(tmp_path: Path, suffix: str) -> None:
    header, told = FOREIGN[suffix]
    root = folder_of(tmp_path / "raw", {"cat": 1, "dog": 0})
    (root / "dog" / f"1{suffix}").write_bytes(header)
    said = refusal(root, tmp_path / "out")
    assert f"dog/1{suffix}: {told}" in said
    assert "convert it to JPEG or PNG" in said
    # A class that is left without a picture does not vanish, whatever is ignored.
    said = refusal(root, tmp_path / "out", "options.ignore_other_files=true")
    assert "mine dog: a class directory without an image" in said
    report = run(root, tmp_path / "out", "options.ignore_other_files=true", "check_counts=warn")
    assert [p.where for p in report.problems] == ["dog", "dog"]
    assert told in report.problems[0].detail
    (root / "cat" / "0.jpg").unlink()
    assert told in refusal(root, tmp_path / "none", "options.ignore_other_files=true")


@without_heif
@pytest.mark.parametrize("suffix", FOREIGN)
def test_pictures_are_known_by_suffix_and_by_their_first_bytes(suffix: str) -> None:
    header, told = FOREIGN[suffix]
    assert str(formats.why_unread(suffix.lower())).startswith(told)
    by_bytes = formats.suffix_of(header)
    assert by_bytes is None if suffix == ".CR2" else str(formats.why_unread(by_bytes or "")).startswith(told)


@without_heif
def test_such_pictures_under_another_suffix_are_told_too(tmp_path: Path) -> None:
    """As phones and web sites write them."""
    header, told = FOREIGN[".heic"]
    root = folder_of(tmp_path / "raw", {"cat": 1, "dog": 0})
    (root / "dog" / "1.jpg").write_bytes(header)
    said = refusal(root, tmp_path / "out")
    assert f"dog/1.jpg: is {told}" in said
    (tmp_path / "m.csv").write_text("image,label\nraw/dog/1.jpg,dog\n")
    assert f"m.csv, row 2: is {told}" in refusal(tmp_path / "m.csv", tmp_path / "out", dataset="manifest")


def test_avif_of_an_old_pillow_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "suffixes", lambda: frozenset({".jpg"}))
    assert "`pip install 'pillow>=11.3'`" in str(formats.why_unread(".avif"))
    assert formats.suffix_of(b"\0\0\0\x1cftypavif\0\0\0\0") == ".avif"
    assert formats.why_unread(".jpg") is None


@pytest.mark.parametrize("size", [(2000, 10), (3, 601)])
def test_pictures_that_are_too_long_for_the_model_are_told_when_built(tmp_path: Path, size: tuple[int, int]) -> None:
    root = folder_of(tmp_path / "raw", {"cat": 1})
    content = io.BytesIO()
    Image.new("RGB", size, "red").save(content, "PNG")
    (root / "cat" / "long.png").write_bytes(content.getvalue())
    told = refusal(root, tmp_path / "out")
    assert f"cat/long.png: is {size[0]} x {size[1]} pixels: too long for the image processor (1:200)" in told
    report = run(root, tmp_path / "out", "on_broken=skip")
    assert (report.files["train"].rows, len(report.problems)) == (1, 1)


def test_when_no_picture_can_be_decoded_the_cause_comes_first_and_a_report_is_written(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    for name in "abcde":
        (root / name).mkdir(parents=True)
    (root / "a" / "1.jpg").write_bytes(b"no picture")
    told = refusal(root, tmp_path / "out", "on_broken=skip", "check_counts=warn")
    assert "none of the 1 images can be decoded: 1 x broken image: mine a/1.jpg: is no image in a known format" in told
    assert json.loads((tmp_path / "out" / "report.failed.json").read_text())["ok"] is False


# Names and paths


def test_names_that_are_no_utf_8_are_told_in_one_line(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "raw", {"cat": 1})
    os.rename(root / "cat" / "0.jpg", os.fsencode(root / "cat") + b"/caf\xe9.jpg")
    assert r"the name 'cat/caf\\xe9.jpg' is not UTF-8; rename it" in refusal(root, tmp_path / "out")


def test_a_message_with_such_a_name_can_be_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    root = folder_of(tmp_path / "raw", {"cat": 1})
    os.rename(root / "cat" / "0.jpg", os.fsencode(root / "cat") + b"/caf\xe9.txt")
    words = ["dataset=image_folder", f"root={root}", f"out={tmp_path / 'out'}", "name=mine", "splits.train=[all]"]
    assert fixtures.run(["build", *words, "splits.test=[]"]) == 2
    told = capfd.readouterr().err
    assert told.startswith("speciarl: ")
    assert told.count("\n") == 1
    assert "not an image by its suffix" in told


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("https://example.org/a.jpg", "is the URL 'https://example.org/a.jpg'; download the images"),
        ("data:image/jpeg;base64,AAAA", "base64 perhaps: decode it to files"),
        ("/9j/" + "A" * 100_000, "is 100004 characters of text ('/9j/AAAA"),
    ],
)
def test_what_is_no_path_in_an_image_column_is_told_briefly(tmp_path: Path, value: str, told: str) -> None:
    (tmp_path / "m.jsonl").write_text(json.dumps({"image": value, "label": "cat"}))
    rows = datasets.Dataset.from_dict({"image": [value], "label": ["cat"]})
    rows.save_to_disk(tmp_path / "saved")
    for reader, root in (("manifest", tmp_path / "m.jsonl"), ("hub", tmp_path / "saved")):
        with pytest.raises(DataPrepError) as caught:
            list(load(reader).samples(root, "all"))
        assert told in str(caught.value)
        assert len(str(caught.value)) < 500


def test_a_missing_picture_of_a_manifest_is_the_rows_fault(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("image,label\nnone.jpg,cat\n")
    told = refusal(tmp_path / "m.csv", tmp_path / "out", dataset="manifest")
    assert "No such file or directory; correct row 2 of m.csv" in told
    assert "archive" not in told


@pytest.mark.parametrize("name", ["my photos [2024]", "a=b (1)", "für {mich}", "größe", "50%, x", 'a "b" c', "it's"])
def test_a_path_that_hydra_does_not_take_is_told_with_the_quotes_it_needs(tmp_path: Path, name: str) -> None:
    root = folder_of(tmp_path / name, {"cat": 1})
    fixed = ["dataset=image_folder", f"out={tmp_path / 'out'}", "name=mine", "splits.train=[all]", "splits.test=[]"]
    with pytest.raises(DataPrepError, match=r"root: the value .* has signs of Hydra's own language") as caught:
        settings([*fixed, f"root={root}"])
    assert "\n" not in str(caught.value)
    (word,) = shlex.split(str(caught.value).partition("quote it twice: ")[2])  # as a shell reads it
    config = settings([*fixed, word])
    assert isinstance(config, BuildConfig)
    assert config.sources["mine"].root == root


@pytest.mark.parametrize(
    "names", [["AT&T"], ["Crème brûlée", "C++"], ["it's", "a (b)"], ["F/A-18", "ü"], ['5" gun', "#1"]]
)
def test_names_in_a_list_that_hydra_does_not_take_are_told_with_the_quotes_they_need(names: list[str]) -> None:
    fixed = ["dataset=image_folder", "root=r", "out=o", "name=mine"]
    with pytest.raises(
        DataPrepError, match=r"select\.include: the value .* has signs of Hydra's own language"
    ) as caught:
        settings([*fixed, f"select.include=[{', '.join(names)}]"])
    (word,) = shlex.split(str(caught.value).partition("quote it twice: ")[2])
    config = settings([*fixed, word])
    assert isinstance(config, BuildConfig)
    assert list(config.select.include) == names


@pytest.mark.parametrize("name", ["with space", "a-b_c.d", "50%"])
def test_plain_paths_need_no_quotes(tmp_path: Path, name: str) -> None:
    words = ["dataset=image_folder", f"root={tmp_path / name}", f"out={tmp_path}", "name=mine"]
    config = settings([*words, "splits.train=[all]", "splits.test=[]"])
    assert isinstance(config, BuildConfig)
    assert config.sources["mine"].root == tmp_path / name


@pytest.mark.parametrize("dataset", ["image_folder", "manifest", "hub"])
def test_a_mistyped_key_is_named_although_others_are_given(tmp_path: Path, dataset: str) -> None:
    with pytest.raises(DataPrepError, match=r"subset\.cuont: there is no such key; did you mean count"):
        settings([f"dataset={dataset}", f"root={tmp_path}", "name=mine", "subset.cuont=3"])


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("verbatim=true", "verbatim: there is no such key; did you mean options.verbatim?"),
        ("hierachy=true", "hierachy: there is no such key; did you mean options.hierarchy?"),
        ("spilts.train=[x]", "spilts.train: there is no such key"),
    ],
)
def test_an_option_without_the_word_before_it(tmp_path: Path, word: str, told: str) -> None:
    with pytest.raises(DataPrepError) as caught:
        settings(["dataset=image_folder", f"root={tmp_path}", "name=mine", word])
    assert str(caught.value).startswith(told)


def test_the_words_that_messages_give_as_remedies_can_be_typed_as_they_are(tmp_path: Path) -> None:
    numbers = folder_of(tmp_path / "numbers", {"3": 1, "4": 1})
    deep = folder_of(tmp_path / "deep", {"bird/jay": 1, "fish/pike": 1})
    other = folder_of(tmp_path / "other", {"cat": 1})
    (other / "cat" / "notes.txt").write_text("x")
    listed = tmp_path / "m.csv"
    listed.write_text("image,label\nnumbers/3/0.jpg,3\nnumbers/4/0.jpg,4\n")
    for root, dataset in (
        (numbers, "image_folder"),
        (deep, "image_folder"),
        (other, "image_folder"),
        (listed, "manifest"),
    ):
        told = refusal(root, tmp_path / "out" / root.name, dataset=dataset)
        (word,) = re.findall(r"set (\S+=\w+)", told)
        assert run(root, tmp_path / "out" / root.name, word, dataset=dataset).files["train"].rows


def test_the_meta_file_of_cars_at_the_root_is_told_where_it_belongs(tmp_path: Path) -> None:
    fixtures.make_cars(tmp_path)
    root = tmp_path / "flat"
    root.mkdir()
    (tmp_path / "devkit" / "cars_meta.mat").rename(root / "cars_meta.mat")
    with pytest.raises(DataPrepError, match=r"flat/cars_meta\.mat: it has to lie in a folder devkit"):
        list(load("cars").samples(root, "train"))


def test_an_error_in_a_streamed_dataset_leaves_with_its_own_exit_code(tmp_path: Path) -> None:
    """Threads of a half-read file used to abort the process at its end (exit code 134)."""
    names = ["cat"] * 2 + [""] + ["dog"] * 2997
    rows = datasets.Dataset.from_dict({"image": [fixtures.jpeg("a")] * 3000, "label": names})
    (tmp_path / "data").mkdir()
    rows.to_parquet(tmp_path / "data" / "train.parquet", batch_size=100)
    words = ["dataset=hub", f"root={tmp_path / 'data'}", f"out={tmp_path / 'out'}", "name=mine", "splits.test=[]"]
    done = subprocess.run(
        [sys.executable, "-m", "data_prep", "build", *words], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.strip().splitlines()[-1].endswith("row 2: label is empty")


# Files of others that are only checked


def rewritten(source: Path, target: Path, change: Any) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(source)
    pq.write_table(pa.Table.from_pylist([change(row) for row in table.to_pylist()], table.schema), target)
    return target


def test_validate_wants_prompts_that_ask_for_an_answer_and_truths_that_are_none_themselves(tmp_path: Path) -> None:
    run(folder_of(tmp_path / "raw", {"cat": 1}), tmp_path / "out")
    good = tmp_path / "out" / "train.parquet"

    def without_tags(row: dict[str, Any]) -> dict[str, Any]:
        return row | {"prompt": [{"role": "user", "content": "<image> What is it?"}]}

    def declining(row: dict[str, Any]) -> dict[str, Any]:
        truth = row["reward_model"] | {"ground_truth": "N-A"}
        return row | {"reward_model": truth, "extra_info": row["extra_info"] | {"label_path": ["N-A"]}}

    for change, told in ((without_tags, "does not ask for the answer"), (declining, "would be right")):
        file = rewritten(good, tmp_path / "changed.parquet", change)
        ((_, found),) = check([file], "images", None, None)
        assert [told in str(fault) for fault in found] == [True]


# Ranges


@pytest.mark.parametrize("word", ["subset.ranges=[0-2,5]", 'subset.ranges="0-2,5"', "subset.ranges=[[0,2],[5,5]]"])
def test_several_ranges_of_the_published_order(tmp_path: Path, word: str) -> None:
    root = folder_of(tmp_path / "raw", {"cat": 4, "dog": 4})
    report = run(root, tmp_path / "out", word)
    assert report.files["train"].labels == {("mine", "cat"): 3, ("mine", "dog"): 1}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["subset.ranges=[5-2]"], "the range '5-2' ends before it begins"),
        (["subset.ranges=[a]"], "'a' is no range; write it like 0-10 or 15"),
        (["subset.ranges=[1-2]", "subset.start=1"], "give ranges, or start and stop, not both"),
    ],
)
def test_ranges_that_make_no_sense(tmp_path: Path, words: list[str], told: str) -> None:
    with pytest.raises(DataPrepError, match=told):
        run(tmp_path, tmp_path / "out", *words)
