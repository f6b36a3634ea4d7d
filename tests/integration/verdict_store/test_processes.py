"""The file store among real processes: killed while they write, racing, and on a full disk."""

import json
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


def test_a_full_disk_costs_no_verdict_and_what_it_kept_out_is_written_later(tmp_path: Path) -> None:
    found = result(start("full", tmp_path / "verdicts.db"))
    assert found.pop("errors") >= 1
    assert found == {"answered": 4000, "degraded": 1, "degraded_later": 0, "lost": 0, "found": 4000}
