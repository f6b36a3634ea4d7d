"""Generation keeps every answer before its place in the window is free, whatever breaks."""

import asyncio
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_engine import ScriptedEngine, row, save

from speciarl.evaluation.config import DatasetConfig, SamplingConfig
from speciarl.evaluation.predict.answer import Answer, EngineDied, Failure, QuestionFailed
from speciarl.evaluation.predict.answer_store import AnswerStore, Keyed
from speciarl.evaluation.predict.cell import Cell
from speciarl.evaluation.predict.generate import Generated, generate, runs
from speciarl.evaluation.predict.sampling import resolve


@pytest.fixture
def store(tmp_path: Path) -> Iterator[AnswerStore]:
    opened = AnswerStore(tmp_path / "answers", {"weights": "w"})
    yield opened
    opened.close()


def cell(file: Path, n: int) -> Cell:
    sampling = SamplingConfig(n=n, temperature=0.6)
    return Cell.of("birds", DatasetConfig(file=str(file)), None, sampling, greedy=False)


def fill(of: Cell, engine: ScriptedEngine, store: AnswerStore, window: int) -> Generated:
    sampling, _ = resolve(of.sampling, {})
    return asyncio.run(generate(of.missing(store), engine, sampling, store, window))


@given(st.sets(st.integers(0, 40)))
def test_runs_are_consecutive_and_complete(seeds: set[int]) -> None:
    found = runs(sorted(seeds))
    assert [seed for run in found for seed in run] == sorted(seeds)
    assert all(list(run) == list(range(run[0] or 0, (run[0] or 0) + len(run))) for run in found)
    assert all((one[-1] or 0) + 1 < (other[0] or 0) for one, other in itertools.pairwise(found))


@pytest.mark.parametrize("window", [1, 5, 64])
def test_no_more_than_the_window_is_under_way(birds: Path, store: AnswerStore, window: int) -> None:
    engine = ScriptedEngine(delay_s=0.001)
    assert fill(cell(birds, 8), engine, store, window).made == 12 * 8
    assert engine.most <= window
    assert list(cell(birds, 8).missing(store)) == []


def test_more_answers_are_made_where_they_are_missing_only(birds: Path, store: AnswerStore) -> None:
    engine = ScriptedEngine()
    fill(cell(birds, 16), engine, store, 64)
    first = set(engine.asked)
    engine.asked.clear()
    assert fill(cell(birds, 64), engine, store, 64).made == 12 * 48
    assert not first & set(engine.asked)
    assert len(first | set(engine.asked)) == 12 * 64


def test_questions_that_are_the_same_are_asked_once(tmp_path: Path, store: AnswerStore) -> None:
    rows = [row(0), row(1), row(0)]
    rows[2]["extra_info"]["sample_id"] = "another name"
    engine = ScriptedEngine()
    assert fill(cell(save(tmp_path / "twice.parquet", rows), 4), engine, store, 64).made == 8


def test_a_question_that_fails_harms_no_other(birds: Path, store: AnswerStore) -> None:
    failing = {
        "id/3": QuestionFailed(Failure.PROMPT_TOO_LONG, "too long"),
        "id/5": QuestionFailed(Failure.ENGINE, "odd"),
    }
    made = fill(cell(birds, 4), ScriptedEngine(failing=failing), store, 8)
    assert made.made == 40
    assert {name: failure.failure for name, failure in made.failures.items()} == {
        "id/3": Failure.PROMPT_TOO_LONG,
        "id/5": Failure.ENGINE,
    }
    assert fill(cell(birds, 4), ScriptedEngine(), store, 8).made == 8


def test_a_broken_image_is_a_failure_of_its_question(tmp_path: Path, store: AnswerStore) -> None:
    file = save(tmp_path / "a.parquet", [row(0), row(1, b"no image"), row(2)])
    made = fill(cell(file, 2), ScriptedEngine(), store, 8)
    assert made.made == 4
    assert made.failures["id/1"].failure is Failure.BROKEN_IMAGE
    assert "image 0 is no image in a known format" in made.failures["id/1"].detail


def test_what_an_engine_answered_before_it_died_is_kept(birds: Path, store: AnswerStore) -> None:
    engine = ScriptedEngine(failing={"id/7": EngineDied("gone")})
    with pytest.raises(EngineDied, match="gone"):
        fill(cell(birds, 1), engine, store, 1)
    assert len(list(cell(birds, 1).missing(store))) == 5


class FullDisk(AnswerStore):
    """Fake: a store whose disk is full after some answers."""

    def __init__(self, folder: Path, room: int) -> None:
        super().__init__(folder, {"weights": "w"})
        self.room = room

    def add(self, answers: list[Keyed]) -> None:  # type: ignore[override]
        if len(answers) > self.room:
            raise OSError(None, "database or disk is full", str(self.path))
        self.room -= len(answers)
        super().add(answers)


def test_a_full_disk_ends_the_generation_and_keeps_what_was_written(birds: Path, tmp_path: Path) -> None:
    full = FullDisk(tmp_path / "full", 7)
    with pytest.raises(OSError, match="disk is full"):
        fill(cell(birds, 1), ScriptedEngine(), full, 1)
    assert len(list(cell(birds, 1).missing(full))) == 5
    full.close()


def test_any_single_answer_can_be_made_again_alone(birds: Path, store: AnswerStore) -> None:
    of = cell(birds, 6)
    engine = ScriptedEngine()
    fill(of, engine, store, 64)
    record = of.rows[4]
    seeds = of.seeds(record.prompt, record.images)
    kept = store.answers(record.prompt, record.images, seeds)
    [missing] = [
        part for part in cell(birds, 6).missing(AnswerStore(birds.parent / "x", {})) if part.images == record.images
    ]
    sampling, _ = resolve(of.sampling, {})

    class Sized:
        size = (8, 6)

    alone: list[Answer] = asyncio.run(engine.answer(missing.question, [Sized()], sampling, [seeds[2]]))
    assert alone == [kept[seeds[2]]]
