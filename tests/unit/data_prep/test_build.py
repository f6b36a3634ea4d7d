"""Builds of every dataset's fixture: rows, bytes, metadata, problems, atomicity."""

import dataclasses
import hashlib
import io
import json
import os
import random
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import data_prep_fixtures as fixtures
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from data_prep import readers
from data_prep.checks.validate import check
from data_prep.compose import folder, names, settings
from data_prep.config import BuildConfig
from data_prep.pipeline.build import build
from data_prep.pipeline.parallel import AHEAD_PER_WORKER, ordered_map
from data_prep.pipeline.report import Report
from data_prep.pipeline.rows import metadata_of
from data_prep.pipeline.spool import Spool
from data_prep.readers.base import About, Picture, Sample
from speciarl.errors import DataPrepError
from speciarl.taxonomy import Taxonomy
from speciarl.utils.atomic_files import Drafts

T = TypeVar("T")
PUBLISHED = ("cub200", "aircraft", "flowers", "food", "pets", "cars", "caltech101")
COOP = ("flowers", "food", "pets")


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fixtures of all datasets, one folder each."""
    folder = tmp_path_factory.mktemp("raw")
    for name in (*PUBLISHED, "image_folder", "manifest", "hub"):
        getattr(fixtures, f"make_{name}")(folder / name)
    for name in COOP:
        getattr(fixtures, f"make_coop_{name}")(folder / name)
    return folder


def run(*words: str) -> tuple[Report, BuildConfig]:
    config = settings(words)
    assert isinstance(config, BuildConfig)
    return build(config), config


def rows_of(file: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(file).to_pylist()
    return found


@pytest.mark.parametrize("name", [*PUBLISHED, "image_folder", "manifest", "hub"])
def test_every_dataset_is_built_from_its_published_layout(name: str, raw: Path, tmp_path: Path) -> None:
    report, config = run(f"dataset={name}", f"root={raw / name}", f"out={tmp_path}", "check_counts=warn")
    reader = readers.load(name)
    listed = {file: list(reader.samples(raw / name, split)) for file, (split,) in config.sources[name].splits.items()}
    for file, samples in listed.items():
        rows = rows_of(tmp_path / f"{file}.parquet")
        assert report.files[file].rows == len(rows) == len(samples)
        for index, (row, sample) in enumerate(zip(rows, samples, strict=True)):
            data = row["images"][0]["bytes"]
            original = sample.picture.read()
            if Image.open(io.BytesIO(original)).mode == "RGB":
                assert data == original
            assert Image.open(io.BytesIO(data)).mode == "RGB"
            assert row["data_source"] == name
            assert row["ability"] == "classification"
            assert row["reward_model"] == {"style": "verifier", "ground_truth": sample.label}
            prompt_id = row["extra_info"].pop("prompt_id")
            assert prompt_id == "general@" + hashlib.sha256(row["prompt"][0]["content"].encode()).hexdigest()[:8]
            assert row["extra_info"] == {
                "index": index,
                "split": file,
                "sample_id": sample.id,
                "label_path": list(sample.label_path),
                "source": name,
                "source_split": sample.split,
            }
    for file, faults in check([tmp_path / f"{file}.parquet" for file in listed], "images", None, None):
        assert faults == [], file
    deep = any(len(sample.label_path) > 1 for samples in listed.values() for sample in samples)
    assert (tmp_path / "taxonomy.json").exists() == deep
    if deep:
        Taxonomy.load(tmp_path / "taxonomy.json")


@pytest.mark.parametrize("name", COOP)
def test_coops_split_is_built_by_its_own_name(name: str, raw: Path, tmp_path: Path) -> None:
    _, config = run(f"dataset={name}_coop", f"root={raw / name}", f"out={tmp_path}", "check_counts=warn")
    assert config.name == name
    for file in ("train", "test"):
        rows = rows_of(tmp_path / f"{file}.parquet")
        assert {(row["data_source"], row["extra_info"]["source_split"]) for row in rows} == {(name, f"coop_{file}")}


def test_the_file_says_what_it_is(raw: Path, tmp_path: Path) -> None:
    run("dataset=pets", f"root={raw}/pets", f"out={tmp_path}", "check_counts=warn", "seed=7")
    file = pq.ParquetFile(tmp_path / "train.parquet")
    stored = metadata_of(file.schema_arrow)
    facts = json.loads(stored["datasets"])["pets"]
    assert facts["licence"] == "CC BY-SA 4.0"
    assert facts["levels"] == ["species", "breed"]
    assert stored["seed"] == "7"
    assert stored["version"]
    config = json.loads(stored["config"])
    assert config["sources"]["pets"]["splits"] == {"train": ["trainval"], "test": ["test"]}
    assert str(tmp_path) not in stored["config"]
    assert str(raw) not in stored["config"]


def test_the_same_seed_gives_the_same_bytes_whatever_the_machine_has(raw: Path, tmp_path: Path) -> None:
    words = ("dataset=food", f"root={raw}/food", "check_counts=warn", "subset.count=5", "prompts=[general,specific]")
    run(*words, f"out={tmp_path}/a", "workers=1")
    run(*words, f"out={tmp_path}/b", "workers=7")
    run(*words, f"out={tmp_path}/c", "seed=43")
    first, second, other = ((tmp_path / name / "train.parquet").read_bytes() for name in "abc")
    assert first == second != other


def test_prompts_are_drawn_by_row_and_recorded(raw: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("<image>Which? <answer></answer>")
    report, _ = run(
        "dataset=cars",
        f"root={raw}/cars",
        f"out={tmp_path}",
        "check_counts=warn",
        f"prompts={{general: 1, {mine}: 1}}",
        "test_prompts=elimination",
    )
    rows = rows_of(tmp_path / "train.parquet")
    names = {row["extra_info"]["prompt_id"].split("@")[0] for row in rows}
    assert names == {"general", "mine"}
    assert sum(report.files["train"].prompts.values()) == len(rows)
    assert all((row["prompt"][0]["content"] == mine.read_text()) == (
        row["extra_info"]["prompt_id"].startswith("mine@")
    ) for row in rows)  # fmt: skip
    assert {row["extra_info"]["prompt_id"].split("@")[0] for row in rows_of(tmp_path / "test.parquet")} == {
        "elimination"
    }


MIX = ("cub200", "flowers", "food", "pets", "cars", "aircraft")


def mix(raw: Path, out: Path, *more: str, dataset: str = "mix") -> Report:
    sizes = [f"sources.{name}.{key}=2" for name in MIX for key in ("count", "test_count")]
    return run(f"dataset={dataset}", f"root={raw}", f"out={out}", "check_counts=warn", *sizes, *more)[0]


def test_a_mix_holds_each_datasets_count_in_mixed_order(raw: Path, tmp_path: Path) -> None:
    report = mix(raw, tmp_path, "sources.pets.prompts=specific")
    assert report.files["train"].sources == dict.fromkeys(MIX, 2)
    rows = rows_of(tmp_path / "train.parquet")
    order = [row["data_source"] for row in rows]
    assert order != sorted(order)
    assert [row["extra_info"]["index"] for row in rows] == list(range(12))
    assert {row["extra_info"]["prompt_id"].split("@")[0] for row in rows if row["data_source"] == "pets"} == {
        "specific"
    }
    assert {row["extra_info"]["prompt_id"].split("@")[0] for row in rows if row["data_source"] != "pets"} == {"general"}
    tree = Taxonomy.load(tmp_path / "taxonomy.json")
    assert len(tree) == report.taxonomy_nodes > 20


def test_the_papers_mix_takes_coops_split_where_there_is_one(raw: Path, tmp_path: Path) -> None:
    mix(raw, tmp_path, dataset="mix_coop")
    found = {(row["data_source"], row["extra_info"]["source_split"]) for row in rows_of(tmp_path / "train.parquet")}
    assert found == {(name, "coop_train" if name in COOP else "train") for name in MIX}


def test_a_mix_by_weights(raw: Path, tmp_path: Path) -> None:
    open_counts = [f"sources.{name}.count=null" for name in MIX]
    report = mix(raw, tmp_path, *open_counts, "sources.food.weight=3", "subset.count=16")
    assert report.files["train"].sources == dict.fromkeys(MIX, 2) | {"food": 6}


@pytest.mark.parametrize("name", [name for name in names() if name != "emoji" and not name.endswith("_coop")])
def test_every_option_of_a_reader_can_be_set_without_a_plus(name: str) -> None:
    plain = yaml.safe_load((folder() / "dataset" / f"{name}.yaml").read_text())
    sources = plain.get("sources") or {plain.get("reader"): plain}
    for reader, source in sources.items():
        default: Any = readers.load(reader)
        options = {key: value for key, value in source["options"].items() if key != "name"}
        assert {field.name for field in dataclasses.fields(default)} - {"name"} == set(options)
        assert readers.load(reader, options) == default


def test_the_papers_mix_is_what_the_option_says() -> None:
    config, official = settings(["dataset=mix_coop"]), settings(["dataset=mix"])
    assert isinstance(config, BuildConfig)
    assert isinstance(official, BuildConfig)
    assert {name: source.count for name, source in config.sources.items()} == dict.fromkeys(MIX, 500)
    assert config.sources["cub200"].root == Path("data/raw/cub200")
    trained = {name: source.splits["train"] for name, source in config.sources.items()}
    assert trained == {name: ["coop_train" if name in COOP else "train"] for name in MIX}
    of_official = {name: source.splits["train"] for name, source in official.sources.items()}
    assert of_official == {name: ["trainval" if name == "pets" else "train"] for name in MIX}
    assert (config.out, config.pictures, config.order) == (official.out, official.pictures, official.order)


def test_the_papers_rows_are_drawn_by_pythons_generator(tmp_path: Path) -> None:
    many = [tiny(f"{number}.jpg") for number in range(20)]
    of(many, TEST, tmp_path, subset={"count": 5, "draw": "python"}, seed=42)
    kept = [row["extra_info"]["sample_id"] for row in rows_of(tmp_path / "train.parquet")]
    places = random.Random(42).sample(range(20), 5)
    assert kept == [many[place].id for place in sorted(places)]
    of(many, TEST, tmp_path, subset={"percent": 25, "draw": "python"}, seed=42)
    assert [row["extra_info"]["sample_id"] for row in rows_of(tmp_path / "train.parquet")] == kept


class Tiny:
    """A dataset for tests: labels and images as given."""

    def __init__(self, samples: Mapping[str, list[Sample]], counts: Mapping[str, int] | None = None) -> None:
        self.by_split = samples
        splits = tuple(samples)
        self.about = About("tiny", "Tiny", "1", "none", "", (), splits, counts or {}, None, ("class",))

    def samples(self, root: Path, split: str) -> Iterator[Sample]:
        return iter(self.by_split[split])


def tiny(name: str, label: str = "x", data: bytes | None = None, split: str = "train") -> Sample:
    return Sample(
        f"tiny/{name}", Picture(name, data=fixtures.jpeg(name) if data is None else data), label, (label,), split, label
    )


def of(train: list[Sample], test: list[Sample], out: Path, **more: Any) -> Report:
    splits = {"train": ["train"], "test": ["test"]}
    node = {"name": "tiny", "out": out, "sources": {"tiny": {"root": ".", "splits": splits}}} | more
    counts = node.pop("counts", None)
    return build(
        BuildConfig.model_validate(node), load=lambda name, options: Tiny({"train": train, "test": test}, counts)
    )


GOOD = [tiny(f"{number}.jpg", f"class {number % 2}") for number in range(4)]
TEST = [tiny("t.jpg", "class 0", split="test")]


def odd() -> list[Sample]:
    empty = dataclasses.replace(tiny("e.jpg"), label=" ", label_path=(" ",))
    return [tiny("b.jpg", data=b"no image"), *GOOD, empty, GOOD[1], tiny("c.jpg", data=fixtures.jpeg("c")[:300])]


def test_what_is_broken_ends_the_build_and_all_of_it_is_listed(tmp_path: Path) -> None:
    with pytest.raises(DataPrepError) as caught:
        of([*odd()[:1], *odd()[-1:], *GOOD], TEST, tmp_path)
    message = str(caught.value)
    assert "2 x broken image" in message
    assert "tiny b.jpg: is no image in a known format" in message
    assert "on_broken=skip" in message
    assert "\n" not in message
    listed = json.loads((tmp_path / "report.failed.json").read_text())
    assert not listed["ok"]
    assert [problem["sample_id"] for problem in listed["problems"]] == ["tiny/b.jpg", "tiny/c.jpg"]
    assert [file.name for file in tmp_path.iterdir()] == ["report.failed.json"]


@pytest.mark.parametrize(("place", "kind"), [(5, "empty label"), (6, "duplicate id")])
def test_faults_of_the_listing_end_the_build_before_images_are_read(place: int, kind: str, tmp_path: Path) -> None:
    with pytest.raises(DataPrepError, match=f"1 x {kind}"):
        of([*GOOD, odd()[place]], TEST, tmp_path)


def test_skipping_counts_and_lists_what_is_left_out(tmp_path: Path) -> None:
    report = of(odd(), TEST, tmp_path, on_broken="skip")
    written = json.loads((tmp_path / "report.json").read_text())
    assert written == report.as_json(ok=True)
    assert written["problem_counts"] == {"empty label": 1, "duplicate id": 1, "broken image": 2}
    assert {(p["kind"], p["sample_id"]) for p in written["problems"]} == {
        ("empty label", "tiny/e.jpg"),
        ("duplicate id", "tiny/1.jpg"),
        ("broken image", "tiny/b.jpg"),
        ("broken image", "tiny/c.jpg"),
    }
    rows = rows_of(tmp_path / "train.parquet")
    assert [row["extra_info"]["sample_id"] for row in rows] == [sample.id for sample in GOOD]
    assert [row["extra_info"]["index"] for row in rows] == [0, 1, 2, 3]
    assert not (tmp_path / "report.failed.json").exists()


def test_a_good_build_removes_the_report_of_a_failed_one(tmp_path: Path) -> None:
    with pytest.raises(DataPrepError):
        of(odd(), TEST, tmp_path)
    of(GOOD, TEST, tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["report.json", "test.parquet", "train.parquet"]


def test_wrong_counts(tmp_path: Path) -> None:
    counts = {"train": 5, "test": 1}
    with pytest.raises(DataPrepError, match=r"split train: 4 images, published are 5 .*check_counts=warn"):
        of(GOOD, TEST, tmp_path, counts=counts)
    report = of(GOOD, TEST, tmp_path, counts=counts, check_counts="warn")
    assert [problem.detail for problem in report.problems] == ["4 images, published are 5"]
    assert report.files["train"].rows == 4


def test_a_sample_of_the_test_split_is_not_trained_on(tmp_path: Path) -> None:
    with pytest.raises(DataPrepError, match="sample in two files"):
        of([*GOOD, TEST[0]], TEST, tmp_path)
    report = of([*GOOD, TEST[0]], TEST, tmp_path, on_broken="skip")
    assert report.files["train"].rows == 4
    assert [problem.sample_id for problem in report.problems] == ["tiny/t.jpg"]


def copies() -> tuple[list[Sample], list[Sample]]:
    """Train with a copy of a test image, a copy in other bytes, and a copy within."""
    image = Image.open(io.BytesIO(fixtures.jpeg("t.jpg")))
    out = io.BytesIO()
    image.save(out, "PNG")
    train = [*GOOD, tiny("copy.jpg", data=fixtures.jpeg("t.jpg")), tiny("again.png", data=out.getvalue())]
    return [*train, tiny("zero.jpg", "class 1", data=fixtures.jpeg("0.jpg"))], TEST


@pytest.mark.parametrize(
    ("by", "gone"),
    [("bytes", {"tiny/copy.jpg", "tiny/zero.jpg"}), ("pixels", {"tiny/copy.jpg", "tiny/again.png", "tiny/zero.jpg"})],
)
def test_equal_images_are_reported_or_dropped(by: str, gone: set[str], tmp_path: Path) -> None:
    train, test = copies()
    report = of(train, test, tmp_path, dedup={"by": by})
    assert {equal.sample_id for equal in report.equal_images} == gone
    assert report.files["train"].rows == 7
    report = of(train, test, tmp_path, dedup={"by": by, "action": "drop"})
    ids = {row["extra_info"]["sample_id"] for row in rows_of(tmp_path / "train.parquet")}
    assert ids == {sample.id for sample in train} - gone
    assert report.files["test"].rows == 1
    told = json.loads((tmp_path / "report.json").read_text())["equal_images"]
    assert told["by"] == by
    assert told["across_files"] == len(gone) - 1
    assert told["within_a_file"] == 1
    assert told["with_another_label"] >= 1


def test_dropped_images_are_made_up_for(tmp_path: Path) -> None:
    train, test = copies()
    report = of(train, test, tmp_path, dedup={"by": "bytes", "action": "drop"}, subset={"count": 5})
    assert report.files["train"].rows == 5


def taken(folder: Path) -> list[str]:
    return [row["extra_info"]["sample_id"].removeprefix("tiny/") for row in rows_of(folder / "train.parquet")]


def test_range_classes_and_size_come_in_this_order(tmp_path: Path) -> None:
    many = [tiny(f"{number:02d}.jpg", f"class {number % 2}") for number in range(20)]
    select = {"exclude": ["class 1"]}
    left = [f"{number:02d}.jpg" for number in range(4, 14, 2)]
    of(many, TEST, tmp_path, subset={"start": 4, "stop": 14}, select=select)
    assert taken(tmp_path) == left
    of(many, TEST, tmp_path, subset={"start": 4, "stop": 14, "count": 3}, select=select)
    assert len(taken(tmp_path)) == 3
    assert set(taken(tmp_path)) < set(left)
    with pytest.raises(DataPrepError, match="train: 6 samples are wanted of tiny, which has 5"):
        of(many, TEST, tmp_path, subset={"start": 4, "stop": 14, "count": 6}, select=select)


def test_a_file_that_nothing_is_left_for_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataPrepError, match="test: no sample is left"):
        of(GOOD, TEST, tmp_path, select={"include": ["class 1"]})


def test_classes_of_one_dataset_of_a_mix(raw: Path, tmp_path: Path) -> None:
    words = [f"~sources.{name}" for name in ("cub200", "flowers", "cars", "aircraft")]
    sizes = [f"sources.{name}.{key}=null" for name in ("food", "pets") for key in ("count", "test_count")]
    chosen = "select.include=[cat,Bibimbap]"
    report, _ = run("dataset=mix", f"root={raw}", f"out={tmp_path}", "check_counts=warn", *words, *sizes, chosen)
    assert {label for _, label in report.files["train"].labels} == {"Abyssinian", "Egyptian Mau", "Bibimbap"}


def test_few_shot_says_which_classes_are_short(tmp_path: Path) -> None:
    report = of([*GOOD, tiny("r.jpg", "rare")], TEST, tmp_path, subset={"per_class": 2})
    assert report.files["train"].few_shot_short == {"tiny/rare": 1}
    assert report.files["train"].rows == 5


def test_row_groups_hold_about_as_many_bytes_as_asked(tmp_path: Path) -> None:
    many = [tiny(f"{number}.jpg") for number in range(40)]
    size = len(fixtures.jpeg("1.jpg"))
    of(many, TEST, tmp_path, row_group_mb=10 * size / 2**20)
    file = pq.ParquetFile(tmp_path / "train.parquet")
    assert file.num_row_groups in (4, 5)
    assert file.metadata.num_rows == 40


def test_a_failure_leaves_the_old_files(tmp_path: Path) -> None:
    of(GOOD, TEST, tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(DataPrepError):
        of(odd(), TEST, tmp_path)
    (tmp_path / "report.failed.json").unlink()
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_an_interruption_leaves_no_half_file(tmp_path: Path) -> None:
    def interrupted(items: Iterable[T], total: int, what: str) -> Iterator[T]:
        for number, item in enumerate(items):
            if what == "test" or number == 2:
                raise KeyboardInterrupt
            yield item

    splits = {"train": ["train"], "test": ["test"]}
    config = BuildConfig.model_validate(
        {"name": "tiny", "out": tmp_path, "sources": {"tiny": {"root": ".", "splits": splits}}}
    )
    with pytest.raises(KeyboardInterrupt):
        build(config, interrupted, load=lambda name, options: Tiny({"train": GOOD, "test": TEST}))
    assert list(tmp_path.iterdir()) == []


def test_two_builds_of_one_folder_do_not_mix(tmp_path: Path) -> None:
    with Drafts() as first:
        first.write(tmp_path / "train.parquet", b"first")
        with Drafts() as second, pytest.raises(DataPrepError, match="is being written by another build"):
            second.open(tmp_path / "train.parquet")
        first.publish()
    assert (tmp_path / "train.parquet").read_bytes() == b"first"
    assert [file.name for file in tmp_path.iterdir()] == ["train.parquet"]


def test_a_draft_that_a_killed_build_left_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / ".train.parquet.draft").write_bytes(b"a long half of a file")
    with Drafts() as drafts:
        drafts.write(tmp_path / "train.parquet", b"whole")
        drafts.publish()
    assert (tmp_path / "train.parquet").read_bytes() == b"whole"


def test_ordered_map_keeps_order_and_looks_ahead_only_so_far() -> None:
    taken = 0
    lock, most, now = threading.Lock(), 0, 0

    def work(number: int) -> int:
        nonlocal most, now
        with lock:
            now = number + 1 - taken
            most = max(most, now)
        return number * number

    result = []
    for value in ordered_map(work, range(200), workers=3):
        result.append(value)
        taken += 1
    assert result == [number * number for number in range(200)]
    assert most <= 3 * AHEAD_PER_WORKER + 1


def test_ordered_map_raises_at_the_place_of_the_error() -> None:
    results = ordered_map(lambda number: 1 // (5 - number), range(10), workers=2)
    with pytest.raises(ZeroDivisionError):
        list(results)


def test_image_bytes_of_tables_wait_on_disk(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        kept = [spool.store(sample) for sample in GOOD]
        assert all(sample.picture.data is None for sample in kept)
        assert [sample.picture.read() for sample in kept] == [sample.picture.read() for sample in GOOD]
        assert list(tmp_path.iterdir()) == []  # nameless: gone even if the process is killed
    on_disk = Sample("a", Picture("w", path=tmp_path / "x"), "l", ("l",), "s", "k")
    assert Spool(tmp_path).store(on_disk) is on_disk


def test_ids_of_a_renamed_dataset_begin_with_its_new_name(raw: Path, tmp_path: Path) -> None:
    run("dataset=cub200", "name=birds", f"root={raw}/cub200", f"out={tmp_path}", "check_counts=warn")
    rows = rows_of(tmp_path / "train.parquet")
    assert {row["data_source"] for row in rows} == {"birds"}
    assert all(row["extra_info"]["sample_id"].startswith("birds/cub200/") for row in rows)


def test_files_of_the_out_folder_are_readable_for_others(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        of(GOOD, TEST, tmp_path)
    finally:
        os.umask(before)
    assert (tmp_path / "train.parquet").stat().st_mode & 0o777 == 0o644
