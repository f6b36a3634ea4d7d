"""The file store among real processes: killed while they write or migrate, racing, and on a full disk."""

import json
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

WRITER = Path(__file__).with_name("writer.py")
DEADLINE_S = 200.0


def start(*arguments: object) -> "subprocess.Popen[str]":
    command = [sys.executable, str(WRITER), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def result(process: "subprocess.Popen[str]") -> Any:
    out, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


def test_a_killed_writer_loses_nothing_it_was_told_is_kept(tmp_path: Path) -> None:
    found = result(start("kill", tmp_path / "verdicts.db", 0, 30))
    assert found.pop("acknowledged") > 100
    assert found == {"missing": 0, "half_batches": 0, "corrupt": 0, "sound": True}
    assert not list(tmp_path.glob("*.damaged-*"))


def test_processes_that_write_the_same_keys_hold_the_same_verdicts(tmp_path: Path) -> None:
    path = tmp_path / "new" / "verdicts.db"
    writers = [start("race", path, category) for category in ("WRONG", "GENERIC", "SPECIFIC")]
    held = [result(writer) for writer in writers]
    assert held[0] == held[1] == held[2]
    assert len(held[0]) == 400


def ask(path: Path, sql: str) -> Any:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(sql).fetchone()
    finally:
        connection.close()


def test_a_kill_in_the_middle_of_the_migration_leaves_the_old_layout_and_the_next_opening_has_it_all(
    tmp_path: Path,
) -> None:
    path = tmp_path / "verdicts.db"
    assert result(start("old", path, 20_000)) is None
    killed = start("migrate", path, 19_000)
    killed.communicate(timeout=DEADLINE_S)
    assert killed.returncode == -signal.SIGKILL
    assert path.with_name("verdicts.db-wal").stat().st_size > 100_000  # it had begun to write
    assert ask(path, "PRAGMA user_version") == (1,)
    assert ask(path, "SELECT count(*), sum(length(content) > 100) FROM verdicts") == (20_000, 20_000)
    assert ask(path, "SELECT count(*) FROM sqlite_schema") == (2,)
    result(start("race", path, "WRONG"))
    assert ask(path, "SELECT count(*), sum(category = 'wrong') FROM verdicts") == (20_400, 20_400)
    assert ask(path, "PRAGMA integrity_check") == ("ok",)


def test_processes_that_open_a_file_of_the_old_layout_at_once_all_work(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.db"
    assert result(start("old", path, 20_000)) is None
    writers = [start("race", path, category) for category in ("WRONG", "GENERIC", "SPECIFIC")]
    held = [result(writer) for writer in writers]
    assert held[0] == held[1] == held[2]
    assert len(held[0]) == 400
    assert ask(path, "SELECT count(*) FROM verdicts") == (20_400,)
    assert [file.name for file in tmp_path.iterdir() if "damaged" in file.name] == []


def test_a_full_disk_costs_no_verdict_and_what_it_kept_out_is_written_later(tmp_path: Path) -> None:
    found = result(start("full", tmp_path / "verdicts.db"))
    assert found.pop("errors") >= 1
    assert found == {"answered": 4000, "degraded": 1, "degraded_later": 0, "lost": 0, "found": 4000}
