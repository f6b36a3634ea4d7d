"""Replays of a verifier service's verdict log and of an evaluation, and verdicts of another judge."""

import json
from pathlib import Path
from typing import Any

import pytest
from replay_logs import SPOKEN, write_evaluation

from speciarl.category import Category
from speciarl.errors import DataError
from speciarl.evaluation import tables
from speciarl.evaluation.replay import log, rewards
from speciarl.evaluation.replay.members import noisy
from speciarl.evaluation.replay.rejudge import rejudged
from speciarl.evaluation.replay.replay import replay
from speciarl.evaluation.replay.rollouts import Rollouts
from speciarl.reward.noise import Noise
from speciarl.verdict import Judgement, Pair, Reason, Source, Unscorable, Verdict
from speciarl.verifier_server import parse_config
from speciarl.verifier_server.service.judges import Judge
from speciarl.verifier_server.service.runs.rows import PartName, make_row, write_part


def config(file: Path) -> Any:
    return parse_config({"kind": "taxonomy", "name": "exact", "taxonomy": str(file)})


def write_part_of(folder: Path, number: int, judge: str, pairs: list[tuple[str, Any]]) -> None:
    """A part with a row per letter and extra information."""
    rows = []
    for letter, extra in pairs:
        lost: Judgement = Unscorable(Reason.TIMEOUT, "no reply")
        judgement = lost if letter == "." else Verdict(SPOKEN[letter], None, Source.LIVE)
        text = None if extra is None else json.dumps(extra)
        rows.append(make_row(Judge(judge, config(folder)), Pair("dog", letter), judgement, None, text))
    write_part(folder, PartName(number, "0" * 8), rows)


def mean(rollouts: Rollouts, name: str = "dynamic", n: int | None = None) -> float | None:
    return replay(rollouts, rewards.parse(name), log="log", n=n).rewards[name].mean


def test_a_services_log_with_groups(tmp_path: Path) -> None:
    run = tmp_path / "logs" / "run"
    rows = [("g", {"group": 1, "session": 1}), ("s", {"group": 1, "session": 0}), ("w", {"uid": "b"})]
    write_part_of(run, 1, "judge", rows)
    write_part_of(run, 2, "judge", [("l", {"uid": "b"}), (".", {"uid": "b"})])
    for folder in (run, run.parent):
        rollouts, judged = log.read(folder)
        assert judged
        assert rollouts.outcome.tolist() == [4, 2, 0, 3, -3]  # by group, then by session or order
        assert mean(rollouts) == 0.5
        assert mean(rollouts, "dynamic_single") == 0.5
    assert "order of judging" in rollouts.notes[0]
    write_part_of(run.parent / "other", 1, "judge", rows)
    with pytest.raises(DataError, match="holds several runs; give one of them: other, run"):
        log.read(run.parent)


def test_groups_of_one_truth_in_a_services_log_meet_noise_of_their_own(tmp_path: Path) -> None:
    names = [f"g{number}" for number in range(40)]
    rows = [("l", {"group": name, "session": 0}) for name in names]
    write_part_of(tmp_path, 1, "judge", rows)
    rollouts, _ = log.read(tmp_path)
    moved = noisy(rollouts, Noise(probability=1.0, seed=1))
    assert set(moved.tolist()) == {Category.GENERIC, Category.SPECIFIC}
    write_part_of(tmp_path / "turned", 1, "judge", rows[::-1])
    turned, _ = log.read(tmp_path / "turned")
    assert noisy(turned, Noise(probability=1.0, seed=1)).tolist() == moved.tolist()[::-1]  # by name, not by place
    assert "groups that left no row" in rollouts.notes[-1]


def test_a_services_log_of_several_judges(tmp_path: Path) -> None:
    rows = [("g", {"group": 1}), ("s", {"group": 1})]
    write_part_of(tmp_path, 1, "one", rows)
    write_part_of(tmp_path, 2, "two", [("w", {"group": 1}), ("w", {"group": 1})])
    with pytest.raises(DataError, match="several judges wrote this log; give --judge with one of them: one, two"):
        log.read(tmp_path)
    assert [mean(log.read(tmp_path, judge)[0]) for judge in ("one", "two")] == [0.5, 0.0]


@pytest.mark.parametrize("extra", [None, {"index": 3}, [1], "group"])
def test_a_services_log_without_groups_is_refused(tmp_path: Path, extra: Any) -> None:
    write_part_of(tmp_path, 1, "judge", [("g", {"group": 1}), ("s", extra)])
    with pytest.raises(DataError, match=r"part-000001-00000000.parquet, row 2: its `extra_info` names no group"):
        log.read(tmp_path)


def test_an_evaluation_is_groups_of_answers(tmp_path: Path) -> None:
    folder = write_evaluation(
        tmp_path, {"lenient": {"a": "gs", "b": "uu", "c": "t."}, "strict": {"a": "ww", "b": "uu", "c": "t."}}
    )
    with pytest.raises(DataError, match="several judges; give --judge with one of them: lenient, strict"):
        log.read(folder)
    with pytest.raises(DataError, match="several judges; give --judge with one of them: lenient, strict"):
        log.read(folder / "verdicts")
    assert log.read(folder / "verdicts", "strict")[0].outcome.tolist() == [0, 0, -1, -1, -2, -3]
    rollouts, judged = log.read(folder, "lenient")
    assert judged
    found = replay(rollouts, rewards.parse("dynamic"), log="log")
    assert found.rewards["dynamic"].groups == 2  # the third has one scored answer, and needs two
    assert found.rewards["dynamic"].mean == pytest.approx((0 + 1 - 1 - 1) / 4)
    assert (found.outcomes["unscored"], found.outcomes["too_long"]) == pytest.approx((1 / 6, 1 / 5))
    below = folder / "verdicts" / "strict" / "model"
    assert mean(log.read(below)[0]) == pytest.approx((0 + 0 - 1 - 1) / 4)


def test_single_answers_are_groups_of_one(tmp_path: Path) -> None:
    assert mean(log.read(write_evaluation(tmp_path, {"judge": {"a": "g", "b": "w"}}))[0], "graded_1") == 0.25


def test_an_evaluation_whose_tables_do_not_fit_is_refused(tmp_path: Path) -> None:
    folder = write_evaluation(tmp_path, {"judge": {"a": "gs"}})
    rows = [{"sample_id": "a", "index": 0, "outcome": 4}]
    verdicts = folder / "verdicts" / "judge" / "model" / "pets" / "as_built.parquet"
    tables.write(verdicts, tables.VERDICTS, rows, {})
    with pytest.raises(DataError, match="has other rows than"):
        log.read(folder)
    tables.write(verdicts, tables.VERDICTS, rows, {"predictions_sha": "another"})
    with pytest.raises(DataError, match="is of earlier predictions than"):
        log.read(folder)
    tables.write(verdicts, tables.VERDICTS, [{**rows[0], "outcome": 9}], {})
    with pytest.raises(DataError, match="outcome 9 is none of -3 to 5"):
        log.read(folder)
    with pytest.raises(DataError, match="lies in no folder `verdicts`"):
        log.read(folder / "predictions" / "model" / "pets" / "as_built.parquet")


def test_another_judge_judges_each_pair_anew(tmp_path: Path) -> None:
    nodes = [{"name": "animal"}, {"name": "dog", "parent": "animal"}]
    file = tmp_path / "taxonomy.json"
    file.write_text(json.dumps({"version": 1, "nodes": nodes}))
    folder = write_evaluation(tmp_path / "out", {"judge": {"a": "wu", "b": "t."}})
    rollouts, judged = log.read(folder, "exact")
    assert not judged
    anew = rejudged(rollouts, config(file))
    # every answer is "dog", as is every truth; what has no answer, or is too long for a name, is not asked about
    assert anew.outcome.tolist() == [Category.SPECIFIC, -1, -2, Category.SPECIFIC]
    assert [tuple(Source)[at] for at in anew.source[[0]]] == [Source.TAXONOMY]
    unknown = write_evaluation(tmp_path / "cats", {"judge": {"a": "ww"}}, truth="cat")
    assert rejudged(log.read(unknown)[0], config(file)).outcome.tolist() == [-3, -3]
