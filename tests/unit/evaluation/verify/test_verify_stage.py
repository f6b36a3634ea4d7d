"""The verify stage as a whole: judges of recipes and files, what is reused, and what makes a judge another one."""

import io
import json
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import yaml
from made_predictions import write_predictions
from rich.console import Console

from speciarl.errors import ConfigError, DataError, VerifierStartError
from speciarl.evaluation import tables
from speciarl.evaluation.config import EvaluationConfig, JudgeConfig, parse
from speciarl.evaluation.matrix import asked
from speciarl.evaluation.outcome import Outcome
from speciarl.evaluation.verify import Verified, verify
from speciarl.evaluation.verify.judge import configuration, identity
from speciarl.verifier_server import factory

ANSWERS = [("lion", "lion"), ("lion", "cat"), ("lion", "animal"), ("lion", "lion"), ("cat", "lion"), ("lion", None)]
PROMPT = {"version": 1, "system": "Grade the pair.", "golden": []}


@pytest.fixture
def hierarchy(tmp_path: Path) -> Path:
    nodes = [{"name": "animal"}, {"name": "cat", "parent": "animal"}, {"name": "lion", "parent": "cat"}]
    file = tmp_path / "taxonomy.json"
    file.write_text(json.dumps({"version": 1, "nodes": nodes}))
    return file


def evaluation(out: Path, **judges: JudgeConfig) -> EvaluationConfig:
    """Two models, one data set; their predictions are made where they are missing."""
    config = parse(
        {
            "out": str(out),
            "models": {"one": {"path": "a"}, "two": {"path": "b"}},
            "datasets": {"cats": {"file": "cats.parquet"}},
            "judges": {name: judge.model_dump() for name, judge in judges.items()},
        }
    )
    for number, cell in enumerate(asked(config)):
        if not cell.predictions(out).exists():
            write_predictions(cell.predictions(out), [*ANSWERS, ("lion", f"beast {number}")])
    return config


def gold(hierarchy: Path) -> JudgeConfig:
    return JudgeConfig(use="taxonomy", settings={"taxonomy": str(hierarchy)})


def asking(server: Any, folder: Path, **settings: Any) -> JudgeConfig:
    (folder / "prompt.yaml").write_text(yaml.safe_dump(PROMPT))
    defaults = {"model": "fake", "endpoints": [server.url], "prompt": str(folder / "prompt.yaml"), "retries": 0}
    (folder / "mine.yaml").write_text(yaml.safe_dump(defaults | {"exact_shortcut": False}))
    return JudgeConfig(use=str(folder / "mine.yaml"), settings=settings)


def run(config: EvaluationConfig) -> list[Verified]:
    return verify(config, config.out, Console(file=io.StringIO(), width=120))


def all_bytes(out: Path) -> dict[str, bytes]:
    return {str(file.relative_to(out)): file.read_bytes() for file in sorted((out / "verdicts").rglob("*.parquet"))}


def test_a_hierarchy_judges_without_a_store(tmp_path: Path, hierarchy: Path) -> None:
    config = evaluation(tmp_path / "out", gold=gold(hierarchy))
    done = run(config)
    assert [(cell.judge, cell.asked.model, cell.answers, cell.pairs) for cell in done] == [
        ("gold", "one", 7, 5),
        ("gold", "two", 7, 5),
    ]
    assert all(cell.unscored == {} and cell.unscored_share == 0 for cell in done)
    table = tables.read(asked(config)[0].verdicts(config.out, "gold"), tables.VERDICTS)
    assert [Outcome(value).name for value in table["outcome"].to_pylist()] == [
        "SPECIFIC", "LESS_SPECIFIC", "GENERIC", "SPECIFIC", "MORE_SPECIFIC", "UNPARSABLE", "WRONG",
    ]  # fmt: skip
    assert not list((tmp_path / "out").rglob("*.sqlite"))


def test_what_is_complete_is_reused_without_starting_the_judge(tmp_path: Path, server: Any) -> None:
    config = evaluation(tmp_path / "out", mine=asking(server, tmp_path))
    first = run(config)
    before, chats = all_bytes(config.out), server.chats
    assert (config.out / "verdicts" / "mine.sqlite").exists()
    with mock.patch.object(factory, "build", side_effect=AssertionError("started")):
        again = run(config)
    assert [(cell.answers, cell.unscored) for cell in again] == [(cell.answers, cell.unscored) for cell in first]
    assert {cell.pairs for cell in again} == {0}
    assert (all_bytes(config.out), server.chats) == (before, chats)


def test_verdicts_from_the_store_make_the_same_bytes_as_new_ones(tmp_path: Path, server: Any) -> None:
    config = evaluation(tmp_path / "out", mine=asking(server, tmp_path))
    run(config)
    before, asked_for = all_bytes(config.out), pairs_seen(server)
    for file in (config.out / "verdicts").rglob("*.parquet"):
        file.unlink()
    assert {cell.pairs for cell in run(config)} == {5}
    assert all_bytes(config.out) == before
    assert pairs_seen(server) == asked_for
    assert max(asked_for.values()) == 1


def pairs_seen(server: Any) -> dict[str, int]:
    """How often the judge saw each pair of ours, probes left out."""
    seen = [request["messages"][-1]["content"] for request in server.requests]
    ours = [content for content in seen if '"lion"' in content or '"cat"' in content]
    return {content: ours.count(content) for content in ours}


def test_another_prompt_is_another_judge_and_needs_no_predictions(tmp_path: Path, server: Any) -> None:
    config = evaluation(tmp_path / "out", mine=asking(server, tmp_path))
    run(config)
    predictions = {file: file.stat().st_mtime_ns for file in config.out.glob("predictions/*/*/*.parquet")}
    before = pairs_seen(server)
    (tmp_path / "prompt.yaml").write_text(yaml.safe_dump(PROMPT | {"system": "Grade the pair!"}))
    assert {cell.pairs for cell in run(config)} == {5}
    assert pairs_seen(server) == {pair: count + 1 for pair, count in before.items()}
    assert predictions == {file: file.stat().st_mtime_ns for file in predictions}


def test_several_judges_stand_side_by_side(tmp_path: Path, server: Any, hierarchy: Path) -> None:
    config = evaluation(tmp_path / "out", gold=gold(hierarchy), mine=asking(server, tmp_path))
    assert [cell.judge for cell in run(config)] == ["gold", "gold", "mine", "mine"]
    ours, theirs = (
        tables.read(asked(config)[0].verdicts(config.out, name), tables.VERDICTS)["outcome"].to_pylist()
        for name in ("gold", "mine")
    )
    assert ours != theirs
    assert ours[:3] == theirs[:3]


async def identity_with(server: Any, folder: Path, **settings: Any) -> dict[str, Any]:
    return await identity(configuration(asking(server, folder, **settings), "mine", folder))


@pytest.mark.anyio
async def test_only_what_decides_verdicts_is_part_of_the_identity(tmp_path: Path, server: Any) -> None:
    usual = await identity_with(server, tmp_path)
    for settings in (
        {"retries": 3}, {"max_concurrency": 2}, {"total_deadline_s": 9}, {"endpoints": ["http://elsewhere:1/v1"]},
        {"name": "other"}, {"store": {"path": "elsewhere.sqlite"}}, {"cache_size": 0},
    ):  # fmt: skip
        assert await identity_with(server, tmp_path, **settings) == usual
    for settings in (
        {"model": "other"}, {"revision": "r2"}, {"decoding": "choice"}, {"max_string_chars": 99}, {"prompt": "base"},
        {"exact_shortcut": True}, {"abstain_shortcut": True}, {"min_label_mass": 0.5},
        {"request_fields": {"top_k": 1}}, {"thinking": True},
    ):  # fmt: skip
        assert await identity_with(server, tmp_path, **settings) != usual


@pytest.mark.anyio
async def test_a_model_counts_by_its_files_and_a_hierarchy_by_its_content(
    tmp_path: Path, server: Any, hierarchy: Path
) -> None:
    for folder in ("here", "there"):
        (tmp_path / folder / "model").mkdir(parents=True)
        (tmp_path / folder / "model" / "weights").write_bytes(b"w")
    here, there = (str(tmp_path / folder / "model") for folder in ("here", "there"))
    usual = await identity_with(server, tmp_path, model=here)
    assert await identity_with(server, tmp_path, model=there) == usual
    Path(there, "weights").write_bytes(b"v")
    assert await identity_with(server, tmp_path, model=there) != usual
    before = await identity(configuration(gold(hierarchy), "gold", tmp_path))
    hierarchy.write_text(hierarchy.read_text().replace("animal", "beast"))
    assert await identity(configuration(gold(hierarchy), "gold", tmp_path)) != before


@pytest.mark.parametrize(
    ("judge", "error", "message"),
    [
        (JudgeConfig(use="nobody"), ConfigError, "there is no recipe/verifier=nobody"),
        (JudgeConfig(use="taxonomy", settings={"taxonomy": "no.json"}), VerifierStartError, "no.json cannot be read"),
        (
            JudgeConfig(
                use="vllm", settings={"model": "m", "endpoints": ["http://127.0.0.1:9"], "startup_deadline_s": 0.1}
            ),
            VerifierStartError,
            "start the server or correct `endpoints`",
        ),
        (
            JudgeConfig(use="service", settings={"name": "j", "service_url": "http://127.0.0.1:9"}),
            VerifierStartError,
            "start the service or correct `service_url`",
        ),
    ],
)
def test_a_judge_that_cannot_be_had_is_said_in_one_line(
    tmp_path: Path, judge: JudgeConfig, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        run(evaluation(tmp_path / "out", mine=judge))
    assert "\n" not in str(caught.value)


def test_missing_predictions_are_said_in_one_line(tmp_path: Path, hierarchy: Path) -> None:
    config = evaluation(tmp_path / "out", gold=gold(hierarchy))
    asked(config)[1].predictions(config.out).unlink()
    with pytest.raises(DataError, match=r"cats/as_built\.parquet cannot be read .*; run the stage that makes it"):
        run(config)
    assert not list((tmp_path / "out" / "verdicts").rglob("*.parquet"))


def test_failures_of_a_judge_are_shown_and_the_stage_ends(tmp_path: Path, server: Any) -> None:
    config = evaluation(tmp_path / "out", mine=asking(server, tmp_path))

    async def refuse(fake: Any, _: Any) -> Any:
        from aiohttp import web

        body = fake.requests[-1]
        if '"lion", "prediction": "animal"' in body["messages"][-1]["content"]:
            return web.Response(status=400, text="no")
        return web.json_response(fake.completion(body))

    server.features = server.features - {"batch"}
    server.plan = lambda _: refuse
    shown = io.StringIO()
    done = verify(config, config.out, Console(file=shown, width=120))
    assert [dict(cell.unscored) for cell in done] == [{"http_error": 1}, {"http_error": 1}]
    assert done[0].unscored_share == pytest.approx(1 / 7)
    assert "unscored: http_error 1" in shown.getvalue()
    before = all_bytes(config.out)
    server.plan = lambda _: None
    done = run(config)
    assert [(cell.pairs, cell.unscored) for cell in done] == [(1, {}), (1, {})]
    assert all_bytes(config.out) != before
