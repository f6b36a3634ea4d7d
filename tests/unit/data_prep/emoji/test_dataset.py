"""The emoji data set: determinism, schema, atomic writing, the command line."""

import io
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from data_prep_fixtures import run
from PIL import Image

from data_prep.emoji.concepts import load_concepts
from data_prep.emoji.dataset import PROMPT, build, plan
from data_prep.emoji.facts import Concept, Fact, Stratum
from data_prep.emoji.views import IMAGE_PX, view, view_rng
from speciarl.errors import DataPrepError
from speciarl.taxonomy import Taxonomy

_FILES = ("train.parquet", "test.parquet", "taxonomy.json")


def _few() -> list[Concept]:
    concepts = load_concepts()
    return [
        c for domain in sorted({c.domain for c in concepts}) for c in [c for c in concepts if c.domain == domain][:4]
    ]


def _build(folder: Path, seed: int = 0, views: int = 2) -> dict[str, int]:
    return build(_few(), folder, seed, views, lambda _: None)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        _build(tmp_path / name, seed)
    for file in _FILES:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    for file in _FILES[:2]:
        assert (tmp_path / "a" / file).read_bytes() != (tmp_path / "c" / file).read_bytes()


def test_rows_have_the_columns_that_training_reads(tmp_path: Path) -> None:
    assert _build(tmp_path)["train.parquet"] == 8
    rows = pq.read_table(tmp_path / "test.parquet").to_pylist()
    assert {row["data_source"] for row in rows} == {"emoji/animals", "emoji/food", "emoji/objects", "emoji/travel"}
    for index, row in enumerate(rows):
        picture = Image.open(io.BytesIO(row["images"][0]["bytes"]))
        assert picture.size == (IMAGE_PX, IMAGE_PX)
        assert picture.mode == "RGB"
        assert row["images"][0]["path"] is None
        assert row["prompt"] == [{"role": "user", "content": PROMPT}]
        assert row["ability"] == "classification"
        extra = row["extra_info"]
        assert row["reward_model"] == {"style": "verifier", "ground_truth": extra["label_path"][-1]}
        assert (extra["index"], extra["split"]) == (index, "test")
        assert extra["stratum"] in [stratum.value for stratum in Stratum]
    assert len({row["extra_info"]["sample_id"] for row in rows}) == len(rows)


def test_the_taxonomy_file_holds_every_ground_truth(tmp_path: Path) -> None:
    _build(tmp_path)
    names = {node["name"] for node in json.loads((tmp_path / "taxonomy.json").read_text())["nodes"]}
    for split in ("train", "test"):
        rows = pq.read_table(tmp_path / f"{split}.parquet").to_pylist()
        assert {row["reward_model"]["ground_truth"] for row in rows} <= names
    assert len(Taxonomy.load(tmp_path / "taxonomy.json")) == len(names)


def test_training_pictures_are_never_tested() -> None:
    views = plan(_few(), 3)
    assert {concept.domain for concept, _ in views["train"]} == {"emoji/animals"}
    assert view_rng(0, "train", "dog", 0).random() != view_rng(0, "test", "dog", 0).random()


def test_a_view_depends_on_its_random_stream_only() -> None:
    drawing = Image.new("RGBA", (80, 80), (200, 30, 30, 255))
    first, second, other = (view(drawing, view_rng(0, "s", "dog", number)) for number in (1, 1, 2))
    assert first.tobytes() == second.tobytes() != other.tobytes()


def test_a_failure_leaves_the_old_files_alone(tmp_path: Path) -> None:
    _build(tmp_path)
    before = {file: (tmp_path / file).read_bytes() for file in _FILES}
    broken = Concept(0, Fact(("FFFFF",), "a", "b", "no such emoji", ()), "emoji/animals", Stratum.KNOWN)
    with pytest.raises(DataPrepError, match="no such emoji"):
        build([broken], tmp_path, 0, 1, lambda _: None)
    assert {file: (tmp_path / file).read_bytes() for file in _FILES} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(_FILES)


def test_bad_input_gives_one_line_and_a_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["emoji-facts", "--emoji-test", str(tmp_path / "none.txt"), "--out", str(tmp_path / "x.csv")]) == 1
    (tmp_path / "empty.txt").write_text("")
    assert run(["emoji-facts", "--emoji-test", str(tmp_path / "empty.txt"), "--out", str(tmp_path / "x.csv")]) == 2
    (tmp_path / "file").write_text("in the way")
    assert run(["emoji", "--quiet", "--out", str(tmp_path / "file")]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 3
    assert all(line.startswith("speciarl: ") for line in lines)


def test_a_count_of_views_below_one_is_refused() -> None:
    assert run(["emoji", "--out", "x", "--train-views", "0"]) == 2
