"""The predict stage makes what is missing and nothing else; a key knows content only."""

import asyncio
import io
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from rich.console import Console
from scripted_engine import ScriptedEngine, picture, row, save

from speciarl.evaluation import plan, tables
from speciarl.evaluation.config import EvaluationConfig
from speciarl.evaluation.predict.answer import Failure, QuestionFailed
from speciarl.evaluation.predict.stage import Predicted, predict

Configured = Callable[..., EvaluationConfig]
SAMPLED = {"n": 4, "temperature": 0.6}


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


def run(config: EvaluationConfig, engine: ScriptedEngine | None = None) -> tuple[list[Predicted], ScriptedEngine]:
    engine = engine or ScriptedEngine()
    return asyncio.run(predict(config, quiet(), lambda *_: engine)), engine


def made(config: EvaluationConfig, engine: ScriptedEngine | None = None) -> int:
    return sum(one.made for one in run(config, engine)[0])


def test_the_table_has_a_row_for_every_answer(configured: Configured) -> None:
    config = configured(sampling=SAMPLED)
    [cell], _ = run(config)
    path = cell.asked.predictions(config.out)
    found = tables.read(path, tables.PREDICTIONS).to_pylist()
    assert [(one["sample_id"], one["index"]) for one in found] == [(f"id/{i}", j) for i in range(12) for j in range(4)]
    assert len({one["key"] for one in found}) == len({one["seed"] for one in found}) == 48
    one = found[5]
    assert one["answer"] == f"bird 1 {one['seed'] % 7}"
    assert (one["image_width"], one["image_height"], one["finish_reason"], one["failure"]) == (8, 6, "stop", None)
    assert tables.facts(path)["sampling"]["temperature"] == 0.6


def test_a_second_run_does_nothing(configured: Configured) -> None:
    config = configured(sampling=SAMPLED)
    run(config)
    [cell], engine = run(config)
    assert (cell.made, cell.known, engine.starts, engine.asked) == (0, 48, 0, [])


@pytest.mark.parametrize(
    "changed",
    [{"top_p": 0.9}, {"temperature": 0.7}, {"top_k": 9}, {"min_p": 0.1}, {"repetition_penalty": 1.1},
     {"presence_penalty": 0.1}, {"frequency_penalty": 0.1}, {"max_tokens": 99}, {"seed": 5}],
)  # fmt: skip
def test_any_sampling_field_makes_other_answers(configured: Configured, changed: dict[str, Any]) -> None:
    run(configured(sampling=SAMPLED))
    assert made(configured(sampling=SAMPLED | changed)) == 48


def test_other_weights_or_engine_settings_make_other_answers(configured: Configured) -> None:
    config = configured()
    run(config)
    assert made(config, ScriptedEngine(weights="other")) == 12
    assert made(config, ScriptedEngine(settings={"max_pixels": 100})) == 12


def test_a_changed_character_of_the_prompt_or_pixel_makes_another_answer(configured: Configured, birds: Path) -> None:
    run(configured())
    rows = [row(number) for number in range(12)]
    rows[2] = row(2, prompt="<image>Name it!")
    rows[7] = row(7, picture(77))
    save(birds, rows)
    assert made(configured()) == 2


def test_folder_names_row_order_and_more_data_reuse_everything(
    configured: Configured, birds: Path, tmp_path: Path
) -> None:
    first = configured(sampling=SAMPLED)
    run(first)
    moved = save(tmp_path / "elsewhere" / "x.parquet", [row(number) for number in reversed(range(12))])
    shutil.copytree(first.answers_folder, tmp_path / "kept")
    others = configured(
        out=tmp_path / "new", answers=tmp_path / "kept", sampling=SAMPLED,
        engine={"window": 3, "tensor_parallel_size": 2},
        models={"renamed": {"path": "anything", "endpoint": "http://localhost:2/v1"}},
        datasets={"again": {"file": str(moved)}, "more": {"file": str(save(tmp_path / "more.parquet", [row(50)]))}},
        judges={"another": {"use": "laptop"}},
    )  # fmt: skip
    assert [one.made for one in run(others)[0]] == [0, 4]


def test_more_answers_make_only_those(configured: Configured) -> None:
    run(configured(sampling={"n": 16, "temperature": 0.6}))
    assert made(configured(sampling={"n": 64, "temperature": 0.6})) == 12 * 48


def test_a_prompt_in_place_of_the_files(configured: Configured) -> None:
    config = configured(prompts=("as_built", "specific"))
    cells, engine = run(config)
    assert [one.made for one in cells] == [12, 12]
    assert engine.starts == 1


def test_models_that_differ_in_sampling_share_an_engine(configured: Configured) -> None:
    model = {"path": "anything", "endpoint": "http://localhost:1/v1"}
    cells, engine = run(configured(models={"greedy": model, "sampled": {**model, "sampling": SAMPLED}}))
    assert [one.made for one in cells] == [12, 48]
    assert engine.starts == 1
    assert engine.stopped


def test_failures_are_rows_and_only_those_that_may_pass_are_tried_again(configured: Configured) -> None:
    config = configured()
    failing = {"id/1": QuestionFailed(Failure.PROMPT_TOO_LONG, "2,000 tokens")}
    [cell], _ = run(config, ScriptedEngine(failing=failing))
    assert cell.failed == {"prompt_too_long": 1}
    found = tables.read(cell.asked.predictions(config.out), tables.PREDICTIONS).to_pylist()[1]
    assert (found["failure"], found["failure_detail"], found["answer"]) == ("prompt_too_long", "2,000 tokens", None)
    [cell], engine = run(config, ScriptedEngine(failing=failing))
    assert (cell.failed, engine.asked) == ({"prompt_too_long": 1}, [])

    other = configured(out=config.out / "other")
    run(other, ScriptedEngine(failing={"id/1": QuestionFailed(Failure.ENGINE, "odd")}))
    [cell], engine = run(other)
    assert (cell.failed, engine.asked) == ({}, [("id/1", None)])


def test_a_damaged_table_is_made_again_from_the_answers(configured: Configured) -> None:
    config = configured()
    [cell], _ = run(config)
    path = cell.asked.predictions(config.out)
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    [cell], engine = run(config)
    assert (cell.made, engine.asked, path.read_bytes()) == (0, [], whole)


def test_images_that_are_only_named_are_looked_at_again(configured: Configured, tmp_path: Path) -> None:
    image = tmp_path / "bird.png"
    image.write_bytes(picture(1))
    one = row(0)
    one["images"] = [{"bytes": None, "path": str(image)}]
    config = configured(datasets={"named": {"file": str(save(tmp_path / "named.parquet", [one]))}})
    assert [made(config), made(config)] == [1, 0]
    image.write_bytes(picture(2))
    assert made(config) == 1


def test_the_plan_tells_what_is_reused_and_which_field_differs(configured: Configured, birds: Path) -> None:
    def planned(config: EvaluationConfig, engine: ScriptedEngine | None = None) -> list[tuple[int, int, str]]:
        found = plan.plan(config, quiet(), lambda *_: engine or ScriptedEngine())
        return [(one.known, one.missing, one.why) for one in found]

    config = configured(sampling=SAMPLED)
    assert planned(config) == [(0, 48, "nothing answered yet")]
    run(config)
    assert planned(config) == [(48, 0, "")]
    assert planned(configured(sampling=SAMPLED | {"top_p": 0.9})) == [(0, 48, "top_p")]
    assert planned(config, ScriptedEngine(weights="x")) == [(0, 48, "weights")]
    assert planned(configured(sampling=SAMPLED | {"n": 6})) == [(48, 24, "n is larger, or not all were made")]
    assert planned(configured(sampling=SAMPLED, prompts=("specific",))) == [(0, 48, "prompt text (or seed)")]
    save(birds, [row(number, picture(100 + number) if number == 3 else None) for number in range(12)])
    assert planned(config) == [(44, 4, "images")]


SLOW = """
import asyncio, io, json, sys
from pathlib import Path
from rich.console import Console
from scripted_engine import ScriptedEngine
from speciarl.evaluation.config import parse
from speciarl.evaluation.predict.stage import predict

config = parse(json.loads(Path(sys.argv[1]).read_text()))
print("ready", flush=True)
asyncio.run(predict(config, Console(file=io.StringIO()), lambda *_: ScriptedEngine(delay_s=float(sys.argv[2]))))
"""


def test_killed_at_any_point_it_ends_with_the_same_bytes(configured: Configured, tmp_path: Path) -> None:
    whole = configured(sampling=SAMPLED, engine={"window": 2})
    [cell], _ = run(whole)
    expected = cell.asked.predictions(whole.out).read_bytes()
    config = whole.model_copy(update={"out": tmp_path / "killed"})
    file = tmp_path / "settings.json"
    file.write_text(config.model_dump_json())
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    def start(delay_s: float) -> subprocess.Popen[str]:
        words = [sys.executable, "-c", SLOW, str(file), str(delay_s)]
        return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True)

    counts = []
    for wait_s in (0.0, 0.1, 0.2, 0.3, 0.15):
        child = start(0.05)
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(wait_s)
        child.send_signal(signal.SIGKILL)
        child.wait()
        counts.append(48 - sum(one.missing for one in plan.plan(config, quiet(), lambda *_: ScriptedEngine())))
    assert counts == sorted(counts)  # nothing that was kept is lost again
    last = start(0.0)
    assert last.wait(timeout=120) == 0
    found = cell.asked.predictions(config.out)
    assert found.read_bytes() == expected
    assert pq.read_table(found).num_rows == 48
