"""The commands under `speciarl verifier store`."""

import asyncio
import json
import time
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from typer.testing import CliRunner

from speciarl.answer import NORMALISER_VERSION
from speciarl.category import Category
from speciarl.verdict import Pair, Source, Verdict
from speciarl.verifier_server.store import JudgeIdentity, Record
from speciarl.verifier_server.store.cli import app, model_of
from speciarl.verifier_server.store.sqlite_store import FileStore

JUDGE = JudgeIdentity("vllm", "org/judge", "abc", "prompt", ("wrong", "right"), "first_token", "{}")
DAY_S = 86400.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store with one verdict for each of the last ten days."""

    async def fill() -> None:
        store = FileStore(tmp_path / "verdicts.db")
        await store.open()
        now = time.time()
        verdict = Verdict(Category.GENERIC, 1.0, Source.LIVE)
        records = [Record.of(JUDGE.fingerprint, Pair("lion", str(i)), verdict, now - i * DAY_S) for i in range(10)]
        await store.put(JUDGE, records)
        await store.aclose()

    asyncio.run(fill())
    return tmp_path / "verdicts.db"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(result: Result) -> str:
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("speciarl: ")
    return result.stderr


def count(path: Path) -> int:
    return int(json.loads(run("stats", path, "--json").stdout)["verdicts"])


def test_stats(path: Path) -> None:
    shown = run("stats", path)
    assert shown.exit_code == 0
    assert "10 verdicts" in shown.stdout
    listed = json.loads(run("stats", path, "--json").stdout)
    assert (listed["verdicts"], listed["damaged"]) == (10, 0)
    (judge,) = listed["judges"]
    assert judge["identity"]["model"] == "org/judge"
    assert judge["fingerprint"] == JUDGE.fingerprint.hex()
    assert judge["categories"]["generic"] == 10
    assert judge["oldest"] < judge["newest"]


def test_stats_tell_verdicts_that_no_run_finds_any_more() -> None:
    old = replace(JUDGE, normaliser=NORMALISER_VERSION - 1)
    assert model_of(old) == "org/judge @ abc (old: normaliser 1)"
    assert model_of(JUDGE) == "org/judge @ abc"


def test_export_and_import(path: Path, tmp_path: Path) -> None:
    out, copy = tmp_path / "out.parquet", tmp_path / "new" / "copy.db"
    done = run("export", path, out)
    assert (done.exit_code, done.stdout) == (0, f"{out}: 10 verdicts\n")
    done = run("import", copy, out)
    assert (done.exit_code, done.stdout) == (0, f"{copy}: 10 verdicts\n")
    assert count(copy) == 10


def test_refused_rows_show_in_the_exit_code(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    run("export", path, out)
    table = pq.read_table(out)
    rows = table.to_pylist()
    rows[3]["category"] = "specific"
    pq.write_table(pa.Table.from_pylist(rows, table.schema), out)
    done = run("import", tmp_path / "copy.db", out)
    assert done.exit_code == 1
    assert "9 verdicts (1 refused)" in done.stdout
    assert "row 3: the checksum does not fit the verdict" in done.stderr


@pytest.mark.parametrize(
    ("options", "left"),
    [
        (["--older-than", "4.5"], 5),
        (["--keep", "3"], 3),
        (["--judge", "org/judge"], 0),
        (["--judge", JUDGE.fingerprint.hex()[:12], "--older-than", "8.5"], 9),
        (["--damaged"], 10),
    ],
)
def test_prune(path: Path, options: list[str], left: int) -> None:
    dry = run("prune", path, *options, "--dry-run")
    assert f"{10 - left} entries would be deleted, {left} left" in dry.stdout
    assert count(path) == 10
    done = run("prune", path, *options)
    assert done.exit_code == 0
    assert f"{10 - left} entries deleted, {left} left" in done.stdout
    assert count(path) == left


def test_errors_are_one_line_and_make_nothing(path: Path, tmp_path: Path) -> None:
    missing = tmp_path / "missing.db"
    for command in (("stats", missing), ("export", missing, tmp_path / "out.parquet"), ("prune", missing, "--keep", 1)):
        assert f"there is no verdict store at {missing}" in refused(run(*command))
    assert not missing.exists()
    assert "there is no folder" in refused(run("export", path, tmp_path / "nowhere" / "out.parquet"))
    assert "there is no file" in refused(run("import", path, tmp_path / "in.parquet"))
    assert "say what to delete" in refused(run("prune", path))
    assert "has no judge 'org/unknown'" in refused(run("prune", path, "--judge", "org/unknown"))
    assert "neither a path nor a Redis URL" in refused(run("stats", "http://host"))
    assert "redis://127.0.0.1:1/0 cannot be used" in refused(run("stats", "redis://:secret@127.0.0.1:1/0"))
    assert "secret" not in run("stats", "redis://:secret@127.0.0.1:1/0").stderr
    assert "password_file" in refused(run("stats", "redis://127.0.0.1:1/0", "--password-file", tmp_path / "none"))


def test_a_damaged_store_is_told_and_left_alone(path: Path) -> None:
    content = b"\0" * 4096 + path.read_bytes()[4096:]
    path.write_bytes(content)
    assert "not a database" in refused(run("stats", path))
    assert path.read_bytes() == content
