"""Questions are the rows of a test set, chosen by source and size, with another prompt where asked."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scripted_engine import picture, row, save

from speciarl.errors import ConfigError, DataError, DataPrepError
from speciarl.evaluation.config import DatasetConfig
from speciarl.evaluation.predict.question import labels, prompt_text, questions


def test_rows_come_in_their_order_with_their_images(birds: Path) -> None:
    chosen = labels("birds", DatasetConfig(file=str(birds)))
    found = list(questions(birds, chosen, None))
    assert [question.label.sample_id for question in found] == [f"id/{number}" for number in range(12)]
    assert found[3].images == (picture(3),)
    assert found[3].label.label_path == ("bird", "bird 3")
    assert found[3].messages == (("user", "<image>Name it."),)


def test_more_rows_than_are_read_at_once(tmp_path: Path) -> None:
    file = save(tmp_path / "many.parquet", [row(number, picture(number % 200)) for number in range(150)])
    chosen = labels("many", DatasetConfig(file=str(file), max_samples=70))
    found = list(questions(file, chosen, None))
    assert [question.label for question in found] == chosen
    assert all(question.images == (picture(question.label.row % 200),) for question in found)


def test_a_smaller_part_lies_within_a_larger_one_whatever_the_order(tmp_path: Path) -> None:
    rows = [row(number) for number in range(30)]
    file, turned = save(tmp_path / "a.parquet", rows), save(tmp_path / "b.parquet", rows[::-1])
    small, large = (
        {label.sample_id for label in labels("a", DatasetConfig(file=str(file), max_samples=count))}
        for count in (5, 12)
    )
    assert small < large
    assert small == {label.sample_id for label in labels("b", DatasetConfig(file=str(turned), max_samples=5))}


def test_only_some_sources(tmp_path: Path) -> None:
    file = save(tmp_path / "a.parquet", [row(0), row(1, source="fish"), row(2)])
    assert [label.row for label in labels("a", DatasetConfig(file=str(file), data_source=("fish",)))] == [1]
    with pytest.raises(ConfigError, match=r"datasets\.a\.data_source: no row .* there are birds, fish"):
        labels("a", DatasetConfig(file=str(file), data_source=("cats",)))


def test_another_prompt_replaces_the_users_and_keeps_the_systems(tmp_path: Path) -> None:
    one = row(0)
    one["prompt"] = [{"role": "system", "content": "Be brief."}, *one["prompt"]]
    file = save(tmp_path / "a.parquet", [one])
    chosen = labels("a", DatasetConfig(file=str(file)))
    [question] = questions(file, chosen, prompt_text("specific"))
    assert question.messages[0] == ("system", "Be brief.")
    assert "<answer>" in question.messages[1][1]
    [as_built] = questions(file, chosen, prompt_text("as_built"))
    assert as_built.prompt_id != question.prompt_id
    assert as_built.images_id == question.images_id


def test_what_is_wrong_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist; build it"):
        labels("a", DatasetConfig(file=str(tmp_path / "none.parquet")))
    other = tmp_path / "other.parquet"
    pq.write_table(pa.table({"x": [1]}), other)
    with pytest.raises(DataError, match=r"other\.parquet is no file of `speciarl data build`"):
        labels("a", DatasetConfig(file=str(other)))
    text = tmp_path / "text.parquet"
    text.write_text("hello")
    with pytest.raises(DataError, match=r"text\.parquet is no file"):
        labels("a", DatasetConfig(file=str(text)))
    twice = save(tmp_path / "twice.parquet", [row(0), row(0)])
    with pytest.raises(DataError, match="sample_id 'id/0' occurs twice"):
        labels("a", DatasetConfig(file=str(twice)))
    with pytest.raises(DataPrepError, match="there is no prompt 'nonsense'"):
        prompt_text("nonsense")


def test_an_image_that_is_only_named_is_read_from_its_file_and_missed_where_it_is_gone(tmp_path: Path) -> None:
    (tmp_path / "bird.png").write_bytes(picture(9))
    named, lost = row(0), row(1)
    named["images"] = [{"bytes": None, "path": str(tmp_path / "bird.png")}]
    lost["images"] = [{"bytes": None, "path": str(tmp_path / "gone.png")}]
    file = save(tmp_path / "a.parquet", [named, lost])
    found = questions(file, labels("a", DatasetConfig(file=str(file))), None)
    assert next(found).images == (picture(9),)
    with pytest.raises(
        DataError, match=r"gone\.png: No such file or directory; a row of the data file names this image"
    ):
        next(found)
