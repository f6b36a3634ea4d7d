"""The answer store loses and doubles nothing: killed, torn, full, damaged or opened twice."""

import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from speciarl.errors import DataError
from speciarl.evaluation.predict.answer import Answer
from speciarl.evaluation.predict.answer_store import AnswerStore, setups

SETUP = {"weights": "w", "temperature": 0.6}


def answer(seed: int | None, text: str = "a <answer>robin</answer>") -> Answer:
    return Answer(seed, text, 5, 9, "stop", 8, 6)


def test_answers_come_back_whole_and_the_first_one_stays(tmp_path: Path) -> None:
    store = AnswerStore(tmp_path, SETUP)
    store.add([(b"p", b"i", answer(7)), (b"p", b"i", answer(9)), (b"q", b"i", answer(8))])
    store.add([(b"p", b"i", answer(7, "another"))])
    assert store.answers(b"p", b"i", [7, 8, 9]) == {7: answer(7), 9: answer(9)}
    assert store.missing(b"p", b"i", [6, 7, 8, 9, 10]) == [6, 8, 10]
    assert store.knows_images(b"i")
    assert not store.knows_images(b"j")
    store.close()
    again = AnswerStore(tmp_path, dict(reversed(SETUP.items())))
    assert again.answers(b"q", b"i", [8]) == {8: answer(8)}
    again.close()
    assert list(setups(tmp_path)) == [SETUP]


def test_a_greedy_answer_has_no_seed(tmp_path: Path) -> None:
    store = AnswerStore(tmp_path, SETUP)
    assert store.missing(b"p", b"i", [None]) == [None]
    store.add([(b"p", b"i", answer(None))])
    assert store.missing(b"p", b"i", [None]) == []
    assert store.answers(b"p", b"i", [None]) == {None: answer(None)}
    store.close()


def test_text_that_has_no_encoding_is_kept_as_far_as_it_has(tmp_path: Path) -> None:
    store = AnswerStore(tmp_path, SETUP)
    store.add([(b"p", b"i", answer(1, "half \ud83d a pair \x00 and a zero"))])
    assert store.answers(b"p", b"i", [1])[1].text == "half ? a pair \x00 and a zero"
    store.close()


def test_torn_at_every_byte_of_its_last_record_it_has_all_that_came_before(tmp_path: Path) -> None:
    store = AnswerStore(tmp_path / "whole", SETUP)
    journal = Path(f"{store.path}-wal")
    store.add([(b"p", b"i", answer(1))])
    before = journal.stat().st_size
    store.add([(b"p", b"i", answer(2))])
    after = journal.stat().st_size
    assert after > before
    content, log = store.path.read_bytes(), journal.read_bytes()  # as a killed process leaves them
    torn = tmp_path / "torn"
    for length in range(before, after, 97):  # every byte would take minutes; 97 has no factor in common with pages
        shutil.rmtree(torn, ignore_errors=True)
        torn.mkdir()
        (torn / store.path.name).write_bytes(content)
        (torn / journal.name).write_bytes(log[:length])
        found = AnswerStore(torn, SETUP)
        assert found.missing(b"p", b"i", [1, 2, 3]) == [2, 3], length
        found.add([(b"p", b"i", answer(2, "made again"))])
        assert found.answers(b"p", b"i", [2])[2].text == "made again"
        found.close()
    store.close()


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    store = AnswerStore(tmp_path, SETUP)
    with pytest.raises(DataError, match=r"is in use by another evaluation; wait for it, or set `answers`"):
        AnswerStore(tmp_path, SETUP)
    store.close()
    AnswerStore(tmp_path, SETUP).close()


def test_a_damaged_file_is_told_from_one_in_use(tmp_path: Path) -> None:
    store = AnswerStore(tmp_path, SETUP)
    store.close()
    store.path.write_bytes(b"not a database at all, but long enough to be taken for one" * 40)
    with pytest.raises(DataError, match=r"is damaged .* move it away, and its answers are made again"):
        AnswerStore(tmp_path, SETUP)
    assert list(setups(tmp_path)) == []


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from speciarl.evaluation.predict.answer import Answer
from speciarl.evaluation.predict.answer_store import AnswerStore

store = AnswerStore(Path(sys.argv[1]), {"weights": "w"})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
kept = 0
try:
    while True:
        store.add([(b"p", b"i", Answer(kept, "x" * 9000, 1, 1, "stop", 1, 1))])
        kept += 1
except OSError as error:
    print(kept, type(error).__name__, error.strerror)
"""


def test_a_full_disk_keeps_what_was_added_and_says_so(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, tmp_path], capture_output=True, text=True, timeout=120, check=True
    )
    kept, kind, message = done.stdout.split(maxsplit=2)
    assert kind == "OSError"
    assert "all answers until now are kept" in message
    store = AnswerStore(tmp_path, {"weights": "w"})
    assert store.missing(b"p", b"i", list(range(int(kept) + 3))) == [int(kept), int(kept) + 1, int(kept) + 2]
    store.close()


def test_the_journal_is_on_the_disk_before_an_answer_counts(tmp_path: Path) -> None:
    store = AnswerStore(tmp_path, SETUP)
    settings = {
        name: store._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")
    }
    assert settings == {"journal_mode": "wal", "synchronous": 2}
    store.close()
    with sqlite3.connect(store.path) as plain:
        assert plain.execute("PRAGMA integrity_check").fetchone() == ("ok",)
