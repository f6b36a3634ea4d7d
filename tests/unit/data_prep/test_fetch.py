"""Fetching a dataset: what is there is used, what is missing is downloaded, what broke off goes on."""

import fcntl
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from data_prep_fixtures import make_archives, make_cub200, make_pets, served_at
from file_server import FileServer, cut_after, status

from data_prep.download import fetch as fetching
from data_prep.download.archive import Limits
from data_prep.download.fetch import MARKERS, fetch
from data_prep.download.http import Policy
from data_prep.readers import load
from data_prep.readers.base import About
from speciarl.errors import DataPrepError

QUICK = Policy(tries=3, connect_s=30, stall_s=30, pause_s=0.01, longest_pause_s=0.02)
PUBLIC = ("cub200", "aircraft", "flowers", "food", "pets", "cars", "caltech101")


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer().running() as running:
        yield running


def _offered(server: FileServer, name: str, folder: Path) -> About:
    """The dataset's archives as the local server offers them."""
    make_archives(name, folder)
    server.files = {file.name: file.read_bytes() for file in folder.iterdir()}
    return served_at(load(name).about, server.url, folder)


def _labels(name: str, root: Path) -> list[str]:
    dataset = load(name)
    split = dataset.about.splits[0]
    samples = list(dataset.samples(root, split))
    assert all(sample.picture.read() for sample in samples)
    return [sample.label for sample in samples]


@pytest.mark.parametrize("name", PUBLIC)
def test_every_dataset_is_fetched_and_read(server: FileServer, tmp_path: Path, name: str) -> None:
    about = _offered(server, name, tmp_path / "home")
    said: list[str] = []
    root = fetch(about, tmp_path / "data", policy=QUICK, say=said.append)
    assert root == tmp_path / "data"
    assert len(_labels(name, root)) > 0
    assert sorted(path for path, _ in server.asked) == sorted(archive.file_name for archive in about.archives)
    assert any("unpacked" in line for line in said)


@pytest.mark.parametrize("name", PUBLIC)
def test_nothing_is_done_twice(server: FileServer, tmp_path: Path, name: str) -> None:
    about = _offered(server, name, tmp_path / "home")
    fetch(about, tmp_path / "data", policy=QUICK)
    times = {file: file.stat().st_mtime_ns for file in (tmp_path / "data").rglob("*.jpg")}
    server.asked.clear()
    fetch(about, tmp_path / "data", policy=QUICK)
    assert server.asked == []
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "data").rglob("*.jpg")} == times


def test_only_the_missing_archive_is_fetched_after_a_failure(server: FileServer, tmp_path: Path) -> None:
    about = _offered(server, "pets", tmp_path / "home")
    server.faults = [None, cut_after(server, 100), status(404)]
    with pytest.raises(DataPrepError, match="404"):
        fetch(about, tmp_path / "data", policy=QUICK)
    server.asked.clear()
    fetch(about, tmp_path / "data", policy=QUICK)
    assert server.asked == [("annotations.tar.gz", "bytes=100-")]
    assert _labels("pets", tmp_path / "data")


def test_archive_is_deleted_when_it_is_not_to_be_kept(server: FileServer, tmp_path: Path) -> None:
    about = _offered(server, "cub200", tmp_path / "home")
    fetch(about, tmp_path / "data", policy=QUICK, keep_archives=False)
    assert not (tmp_path / "data" / "CUB_200_2011.tgz").exists()
    fetch(about, tmp_path / "data", policy=QUICK, keep_archives=False)
    assert len(server.asked) == 1


def test_unpacking_that_broke_off_is_done_again(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = _offered(server, "cub200", tmp_path / "home")
    data = tmp_path / "data"
    real = fetching.unpack

    def killed(*arguments: object) -> int:
        real(*arguments)  # type: ignore[arg-type]
        (data / "CUB_200_2011" / "classes.txt").unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(fetching, "unpack", killed)
    with pytest.raises(KeyboardInterrupt):
        fetch(about, data, policy=QUICK)
    monkeypatch.undo()
    (data / ".unpacking-left").mkdir()
    fetch(about, data, policy=QUICK)
    assert _labels("cub200", data)
    assert not (data / ".unpacking-left").exists()
    assert json.loads((data / MARKERS / "CUB_200_2011.tgz.json").read_text())["url"] == about.archives[0].url


def test_what_was_unpacked_by_hand_is_used_without_a_download(tmp_path: Path) -> None:
    make_cub200(tmp_path / "data")
    assert fetch(load("cub200").about, tmp_path / "data", offline=True) == tmp_path / "data"
    make_pets(tmp_path / "mine")
    about = load("pets").about
    assert fetch(about, tmp_path / "elsewhere", source=tmp_path / "mine", offline=True) == tmp_path / "mine"
    assert not (tmp_path / "elsewhere").exists()
    inner = tmp_path / "data" / "CUB_200_2011"
    assert fetch(load("cub200").about, tmp_path / "elsewhere", source=inner, offline=True) == inner
    assert _labels("cub200", inner)


@pytest.mark.parametrize("name", PUBLIC)
def test_archives_in_a_folder_or_in_the_root_are_used_without_a_download(
    server: FileServer, tmp_path: Path, name: str
) -> None:
    about = _offered(server, name, tmp_path / "mine")
    fetch(about, tmp_path / "data", source=tmp_path / "mine", offline=True)
    assert _labels(name, tmp_path / "data")
    assert all(file.parent == tmp_path / "mine" for file in tmp_path.rglob("*.tgz"))
    fetch(about, tmp_path / "mine", offline=True)
    assert _labels(name, tmp_path / "mine")
    assert server.asked == []


def test_one_archive_may_have_any_name_and_several_keep_theirs(server: FileServer, tmp_path: Path) -> None:
    about = _offered(server, "cub200", tmp_path / "birds")
    mine = (tmp_path / "birds" / "CUB_200_2011.tgz").rename(tmp_path / "birds" / "birds-copy.tgz")
    fetch(about, tmp_path / "data", source=mine, offline=True)
    assert _labels("cub200", tmp_path / "data")
    about = _offered(server, "pets", tmp_path / "pets")
    fetch(about, tmp_path / "data2", source=tmp_path / "pets" / "images.tar.gz", offline=True)
    assert _labels("pets", tmp_path / "data2")
    with pytest.raises(DataPrepError, match="rename"):
        fetch(about, tmp_path / "data3", source=mine, offline=True)


def test_source_that_is_something_else_is_refused(server: FileServer, tmp_path: Path) -> None:
    about = _offered(server, "cub200", tmp_path / "home")
    with pytest.raises(DataPrepError, match="no such file"):
        fetch(about, tmp_path / "data", source=tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataPrepError, match=r"neither .* cub200 .*images.txt is missing.* nor its archives"):
        fetch(about, tmp_path / "data", source=tmp_path / "empty")
    (tmp_path / "other.tgz").write_bytes(b"other")
    with pytest.raises(DataPrepError, match=r"other.tgz: its md5 is .*published"):
        fetch(about, tmp_path / "data", source=tmp_path / "other.tgz")
    assert server.asked == []


def test_offline_says_what_to_fetch_by_hand(tmp_path: Path) -> None:
    with pytest.raises(DataPrepError) as caught:
        fetch(load("food").about, tmp_path, offline=True)
    assert "http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz" in str(caught.value)
    assert str(tmp_path / "food-101.tar.gz") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_archive_of_something_else_leaves_no_finished_note(server: FileServer, tmp_path: Path) -> None:
    _offered(server, "pets", tmp_path / "home")
    wrong = tmp_path / "home" / "images.tar.gz"
    about = load("cub200").about
    about = replace(about, archives=(replace(about.archives[0], md5=None, size_bytes=None),))
    with pytest.raises(DataPrepError, match=r"images.tar.gz: CUB_200_2011/images.txt is not in it"):
        fetch(about, tmp_path / "data", source=wrong)
    assert not (tmp_path / "data" / MARKERS / "CUB_200_2011.tgz.json").exists()
    with pytest.raises(DataPrepError, match="bomb"):
        fetch(about, tmp_path / "data", source=wrong, limits=Limits(max_bytes=10))


def test_two_processes_do_not_fetch_into_one_root(tmp_path: Path) -> None:
    (tmp_path / MARKERS).mkdir()
    with (tmp_path / MARKERS / "lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(DataPrepError, match="another process"):
            fetch(load("cub200").about, tmp_path, offline=True)


def test_dataset_without_archives_has_nothing_to_fetch(tmp_path: Path) -> None:
    assert fetch(load("emoji").about, tmp_path / "data") == tmp_path / "data"
    assert not (tmp_path / "data").exists()
