"""The check that `validate` and training share: each fault by row and column, on files of any origin and size."""

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import data_prep_fixtures as fixtures
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.checks.validate import check, faults
from speciarl.errors import DataError
from speciarl.training.preflight.checks import check_parquet

Row = dict[str, Any]


def row(number: int) -> Row:
    label = f"label {number % 3}"
    return {
        "data_source": "tiny",
        "prompt": [{"role": "user", "content": "<image>What? <answer> </answer>"}],
        "images": [{"bytes": fixtures.jpeg(str(number)), "path": None}],
        "ability": "classification",
        "reward_model": {"style": "verifier", "ground_truth": label},
        "extra_info": {"index": number, "split": "train", "sample_id": f"id {number}", "label_path": ["all", label]},
    }


def written(rows: list[Row], folder: Path, **options: Any) -> Path:
    file = folder / "some.parquet"
    pq.write_table(pa.Table.from_pylist(rows), file, **options)
    return file


def told(rows: list[Row], folder: Path) -> list[str]:
    return [str(fault) for fault in faults(written(rows, folder))]


def test_a_good_file_has_no_faults(tmp_path: Path) -> None:
    assert told([row(number) for number in range(5)], tmp_path) == []


def change(**cells: Any) -> Callable[[Row], None]:
    return lambda cells_of_row: cells_of_row.update(cells)


def extra(**fields: Any) -> Callable[[Row], None]:
    return lambda cells: cells["extra_info"].update(fields)


def image(data: bytes | None) -> Callable[[Row], None]:
    return change(images=[{"bytes": data, "path": None}])


USER = {"role": "user", "content": "<image>What? <answer> </answer>"}
BLIND = {"role": "user", "content": "What? <answer> </answer>"}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (change(reward_model={"style": "verifier", "ground_truth": " "}), "reward_model.ground_truth is missing"),
        (change(reward_model={"style": "verifier", "ground_truth": None}), "reward_model.ground_truth is missing"),
        (change(reward_model=None), "reward_model.ground_truth is missing"),
        (
            change(reward_model={"style": "v", "ground_truth": "?!"}),
            "reward_model.ground_truth is '?!', which holds no",
        ),
        (change(data_source=""), "data_source is missing or empty"),
        (change(data_source=None), "data_source is missing or empty"),
        (change(prompt=[]), "prompt is missing or empty"),
        (change(prompt=None), "prompt is missing or empty"),
        (change(prompt=[{"role": "user", "content": " "}]), "prompt[0] has no role or no content"),
        (change(prompt=[USER, {"role": None, "content": "x"}]), "prompt[1] has no role or no content"),
        (change(prompt=[BLIND]), "prompt has 0 x <image>, but images holds 1 images"),
        (change(prompt=[USER, USER]), "prompt has 2 x <image>, but images holds 1 images"),
        (change(images=[]), "prompt has 1 x <image>, but images holds 0 images"),
        (extra(sample_id="id 0"), "extra_info.sample_id is 'id 0' as in row 0"),
        (extra(label_path=["all", "other"]), "extra_info.label_path ends with 'other'"),
        (image(None), "images[0].bytes is empty; training reads the bytes"),
        (image(b"none"), "images[0].bytes cannot be used: is no image"),
        (image(fixtures.jpeg("x")[:400]), "images[0].bytes cannot be used: "),
        (image(fixtures.png("x", mode="L")), "images[0].bytes is not plain upright RGB (mode L)"),
        (image(fixtures.jpeg("x", size=(2, 500))), "images[0].bytes cannot be used: is 2 x 500 pixels: too long"),
    ],
)
def test_each_fault_names_row_and_column(spoil: Callable[[Row], None], message: str, tmp_path: Path) -> None:
    rows = [row(number) for number in range(4)]
    spoil(rows[2])
    found = told(rows, tmp_path)
    assert len([line for line in found if line.startswith(f"row 2: {message}")]) == 1, found
    assert all(line.startswith("row 2: ") for line in found)


def test_all_faults_are_found(tmp_path: Path) -> None:
    rows = [row(number) for number in range(3000)]
    for number in (7, 1500, 2999):
        rows[number]["reward_model"] = {"style": "verifier", "ground_truth": ""}
        rows[number]["extra_info"]["label_path"] = None
    assert told(rows, tmp_path) == [
        f"row {number}: reward_model.ground_truth is missing or empty" for number in (7, 1500, 2999)
    ]


@pytest.mark.parametrize("column", ["prompt", "data_source", "reward_model", "extra_info", "images"])
def test_a_missing_column_is_named(column: str, tmp_path: Path) -> None:
    rows = [row(0)]
    del rows[0][column]
    (line,) = told(rows, tmp_path)
    assert line.startswith(f"lacks the column {column} (it has ")


@pytest.mark.parametrize("column", ["prompt", "data_source", "reward_model", "extra_info", "images"])
def test_a_column_of_another_type_is_named(column: str, tmp_path: Path) -> None:
    (line,) = told([row(0) | {column: 3}], tmp_path)
    assert line.startswith(f"{column} has the type int64; it must be ")


def test_files_that_are_none(tmp_path: Path) -> None:
    assert [str(fault) for fault in faults(tmp_path / "none.parquet")] == ["does not exist"]
    (tmp_path / "text.parquet").write_text("text")
    (fault,) = faults(tmp_path / "text.parquet")
    assert "is no parquet file" in str(fault)
    table = pa.Table.from_pylist([row(0)]).slice(0, 0)
    pq.write_table(table, tmp_path / "empty.parquet")
    assert [str(fault) for fault in faults(tmp_path / "empty.parquet")] == ["holds no rows"]
    whole = written([row(number) for number in range(50)], tmp_path).read_bytes()
    middle = len(whole) // 3
    (tmp_path / "hole.parquet").write_bytes(whole[:middle] + bytes(3000) + whole[middle + 3000 :])
    assert list(faults(tmp_path / "hole.parquet", images=None)) != []


def test_the_image_column_may_have_another_name_and_no_path(tmp_path: Path) -> None:
    rows = [row(number) for number in range(3)]
    for cells in rows:
        cells["photo"] = [{"bytes": cells.pop("images")[0]["bytes"]}]
    file = written(rows, tmp_path)
    assert list(faults(file, "photo")) == []
    assert [str(fault)[:23] for fault in faults(file)] == ["lacks the column images"]


def test_only_so_many_images_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from data_prep.checks import validate

    file = written([row(number) for number in range(100)], tmp_path, row_group_size=10)
    seen: list[bytes] = []
    decode = validate.encode
    monkeypatch.setattr(validate, "encode", lambda data: seen.append(data) or decode(data))
    assert list(faults(file, images=16)) == []
    assert len(seen) == len(set(seen)) == 16
    seen.clear()
    assert list(faults(file, images=None)) == []
    assert len(seen) == 100


def test_labels_outside_the_taxonomy_and_ids_in_two_files(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    train = written([row(number) for number in range(4)], tmp_path)
    test = written([row(number) for number in range(3, 7)], tmp_path / "b")
    (tmp_path / "taxonomy.json").write_text(
        '{"version": 1, "nodes": [{"name": "all"}, {"name": "label 0", "parent": "all"}, {"name": "label 2"}]}'
    )
    found = dict(check([train, test], "images", 4, None))
    assert [str(fault)[:48] for fault in found[train]] == ["row 1: reward_model.ground_truth 'label 1' is no"]
    assert [str(fault)[:44] for fault in found[test]] == ["row 0: extra_info.sample_id is 'id 3' as in "]


def test_training_refuses_the_same_files_with_key_and_hint(tmp_path: Path) -> None:
    rows = [row(number) for number in range(4)]
    check_parquet(written(rows, tmp_path), "data.train_files", "images", "build it")
    spoiled = copy.deepcopy(rows)
    image(b"none")(spoiled[2])
    with pytest.raises(DataError) as caught:
        check_parquet(written(spoiled, tmp_path), "data.train_files", "images", "build it")
    message = str(caught.value)
    assert message.startswith(f"data.train_files: {tmp_path}/some.parquet, row 2: images[0].bytes cannot be used")
    assert message.endswith("lists all faults); build it")
    with pytest.raises(DataError, match=r"none\.parquet does not exist; build it"):
        check_parquet(tmp_path / "none.parquet", "data.val_files", "images", "build it")


def test_the_check_needs_neither_verl_nor_torch() -> None:
    code = (
        "import sys, data_prep.checks.validate, data_prep.pipeline.build\n"
        "print({'verl', 'torch', 'ray', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "set()"
