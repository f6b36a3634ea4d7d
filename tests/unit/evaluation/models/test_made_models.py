import json
import multiprocessing
from pathlib import Path

import pytest

from speciarl.errors import DataError
from speciarl.evaluation.models.cache import made

SHA = "blake3:" + "ab" * 32


def fill(folder: Path) -> None:
    (folder / "inner").mkdir()
    (folder / "inner" / "file").write_text("content")


def unexpected(folder: Path) -> None:
    raise AssertionError("made a second time")


def test_made_once_then_used_again(tmp_path: Path) -> None:
    folder = made(tmp_path / "cache", "merged", SHA, fill, print)
    assert made(tmp_path / "cache", "merged", SHA, unexpected, print) == folder
    assert (folder / "inner" / "file").read_text() == "content"
    assert made(tmp_path / "cache", "adapter", SHA, fill, print) != folder


@pytest.mark.parametrize("damage", ["inner/file", "made.json", "new"])
def test_a_damaged_one_is_made_again(tmp_path: Path, damage: str) -> None:
    folder = made(tmp_path, "merged", SHA, fill, print)
    (folder / damage).write_text("other")
    said: list[str] = []
    made(tmp_path, "merged", SHA, fill, said.append)
    assert len(said) == 1
    assert (folder / "inner" / "file").read_text() == "content"
    assert json.loads((folder / "made.json").read_text())
    assert not (folder / "new").exists()


def test_an_interruption_leaves_nothing(tmp_path: Path) -> None:
    def interrupted(folder: Path) -> None:
        fill(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made(tmp_path, "merged", SHA, interrupted, print)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


def test_the_draft_of_a_killed_process_is_no_obstacle(tmp_path: Path) -> None:
    name = f".merged-{'ab' * 16}.draft"
    (tmp_path / name / "inner").mkdir(parents=True)
    assert made(tmp_path, "merged", SHA, fill, print).is_dir()
    assert not (tmp_path / name).exists()


def test_a_full_disk_is_told_in_a_line(tmp_path: Path) -> None:
    def full(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(DataError, match=r"cannot be written \(No space left on device\); make room"):
        made(tmp_path, "merged", SHA, full, print)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


def _append(folder: Path) -> None:
    fill(folder)
    with (folder.parent / "times").open("a") as file:
        file.write("x")


def _make(cache: Path) -> None:
    made(cache, "merged", SHA, _append, print)


def test_two_processes_make_it_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_make, args=(tmp_path,)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert (tmp_path / "times").read_text() == "x"
