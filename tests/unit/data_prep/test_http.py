"""Downloads from a real local server: resuming, retrying, giving up, and never a wrong file."""

import fcntl
import hashlib
import random
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from file_server import FileServer, chunked, cut_after, hang, status

from data_prep.download.http import Policy, download
from data_prep.readers.base import Archive
from speciarl.errors import DataPrepError

CONTENT = random.Random(0).randbytes(300_000)
OTHER = random.Random(1).randbytes(300_000)
QUICK = Policy(tries=3, connect_s=30, stall_s=30, pause_s=0.01, longest_pause_s=0.02)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer(files={"a.tgz": CONTENT}).running() as running:
        yield running


def _archive(server: FileServer, content: bytes | None = CONTENT) -> Archive:
    md5 = hashlib.md5(content).hexdigest() if content is not None else None
    return Archive(url=f"{server.url}/a.tgz", file_name="a.tgz", md5=md5)


def _only(folder: Path, content: bytes = CONTENT) -> None:
    assert [(file.name, file.read_bytes()) for file in folder.iterdir()] == [("a.tgz", content)]


def test_file_arrives_once_and_is_only_checked_afterwards(server: FileServer, tmp_path: Path) -> None:
    told: list[int] = []
    assert download(_archive(server), tmp_path / "new", QUICK, told.append) == tmp_path / "new" / "a.tgz"
    _only(tmp_path / "new")
    assert sum(told) == len(CONTENT)
    download(_archive(server), tmp_path / "new", QUICK)
    assert server.asked == [("a.tgz", None)]


def test_connection_that_breaks_is_continued_where_it_was(server: FileServer, tmp_path: Path) -> None:
    server.faults = [cut_after(server, 100_000), cut_after(server, 50_000), status(503)]
    told: list[int] = []
    said: list[str] = []
    download(_archive(server), tmp_path, QUICK, told.append, said.append)
    _only(tmp_path)
    assert len(said) == 3
    assert said[-1] == "a.tgz: the server answers 503; trying again in 0 s"
    assert [asked for _, asked in server.asked] == [None, "bytes=100000-", "bytes=150000-", "bytes=150000-"]
    assert sum(told) == len(CONTENT)


def test_killed_run_is_continued_by_the_next(server: FileServer, tmp_path: Path) -> None:
    server.faults = [cut_after(server, 120_000), status(503), status(503)]
    with pytest.raises(DataPrepError, match="503"):
        download(_archive(server), tmp_path, QUICK)
    assert (tmp_path / "a.tgz.part").stat().st_size == 120_000
    server.asked.clear()
    told: list[int] = []
    download(_archive(server), tmp_path, QUICK, told.append)
    _only(tmp_path)
    assert server.asked == [("a.tgz", "bytes=120000-")]
    assert told[0] == 120_000
    assert sum(told) == len(CONTENT)


def test_server_without_ranges_sends_all_of_it_again(server: FileServer, tmp_path: Path) -> None:
    server.ranges = False
    server.faults = [cut_after(server, 100_000)]
    told: list[int] = []
    download(_archive(server), tmp_path, QUICK, told.append)
    _only(tmp_path)
    assert sum(told) == len(CONTENT)


def test_file_that_changed_meanwhile_is_not_patched_together(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "a.tgz.part").write_bytes(OTHER[:100_000])
    (tmp_path / "a.tgz.part.tag").write_text(f'"{hashlib.md5(OTHER).hexdigest()}"')
    download(_archive(server, None), tmp_path, QUICK)
    _only(tmp_path)


def test_part_without_a_tag_or_checksum_is_not_trusted(server: FileServer, tmp_path: Path) -> None:
    server.tags = False
    (tmp_path / "a.tgz.part").write_bytes(OTHER[:100_000])
    download(_archive(server, None), tmp_path, QUICK)
    _only(tmp_path)
    assert server.asked == [("a.tgz", None)]


def test_part_of_another_file_is_found_by_the_checksum_and_fetched_anew(server: FileServer, tmp_path: Path) -> None:
    server.tags = False
    (tmp_path / "a.tgz.part").write_bytes(OTHER[:100_000])
    download(_archive(server), tmp_path, QUICK)
    _only(tmp_path)
    assert server.asked == [("a.tgz", "bytes=100000-"), ("a.tgz", None)]


@pytest.mark.parametrize("part", [CONTENT, CONTENT + b"more", OTHER])
def test_part_that_is_complete_or_too_long(server: FileServer, tmp_path: Path, part: bytes) -> None:
    (tmp_path / "a.tgz.part").write_bytes(part)
    download(_archive(server), tmp_path, QUICK)
    _only(tmp_path)


def test_wrong_checksum_is_refused_and_thrown_away(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(DataPrepError) as caught:
        download(_archive(server, OTHER), tmp_path, QUICK)
    _has_remedy(caught.value, server, tmp_path)
    assert hashlib.md5(CONTENT).hexdigest() in str(caught.value)
    assert hashlib.md5(OTHER).hexdigest() in str(caught.value)
    assert not (tmp_path / "a.tgz").exists()
    assert (tmp_path / "a.tgz.part").stat().st_size == 0
    assert len(server.asked) == 1


def test_sha256_is_checked_and_without_checksums_the_size(server: FileServer, tmp_path: Path) -> None:
    plain = _archive(server, None)
    with pytest.raises(DataPrepError, match="sha256"):
        download(replace(plain, sha256=hashlib.sha256(OTHER).hexdigest()), tmp_path, QUICK)
    with pytest.raises(DataPrepError, match="published are 299999"):
        download(replace(plain, size_bytes=299_999), tmp_path, QUICK)
    download(replace(plain, sha256=hashlib.sha256(CONTENT).hexdigest().upper(), size_bytes=7), tmp_path, QUICK)
    _only(tmp_path)


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_refusal_is_final(server: FileServer, tmp_path: Path, code: int) -> None:
    server.faults = [status(code)]
    with pytest.raises(DataPrepError, match=f"answers {code}") as caught:
        download(_archive(server), tmp_path, QUICK)
    _has_remedy(caught.value, server, tmp_path)
    assert len(server.asked) == 1


@pytest.mark.parametrize("code", [429, 500, 502, 503, 504])
def test_overload_is_waited_for_within_bounds(server: FileServer, tmp_path: Path, code: int) -> None:
    server.faults = [status(code, Retry_After="3600")] * 2
    download(_archive(server), tmp_path, QUICK)
    _only(tmp_path)
    (tmp_path / "a.tgz").unlink()
    server.asked.clear()
    server.faults = [status(code)] * 9
    with pytest.raises(DataPrepError, match=rf"answers {code} \(after 3 tries\)"):
        download(_archive(server), tmp_path, QUICK)
    assert len(server.asked) == 3


def test_body_without_length_that_is_cut_short_is_fetched_again(server: FileServer, tmp_path: Path) -> None:
    server.faults = [chunked(CONTENT[:1000], end=False)]
    download(_archive(server), tmp_path, QUICK)
    _only(tmp_path)


def test_body_that_ends_with_the_connection_is_measured_by_the_published_size(
    server: FileServer, tmp_path: Path
) -> None:
    def cut(request: BaseHTTPRequestHandler, content: bytes) -> None:
        request.send_response(200)
        request.send_header("Connection", "close")
        request.end_headers()
        request.wfile.write(content[:1000])

    server.faults = [cut]
    download(replace(_archive(server), size_bytes=len(CONTENT)), tmp_path, QUICK)
    _only(tmp_path)


def test_body_without_length_arrives(server: FileServer, tmp_path: Path) -> None:
    server.faults = [chunked(CONTENT[:1000], CONTENT[1000:])]
    download(_archive(server), tmp_path, QUICK)
    _only(tmp_path)
    assert len(server.asked) == 1


def test_server_that_hangs_is_left_after_the_stall_time(server: FileServer, tmp_path: Path) -> None:
    server.faults = [hang(server), hang(server, sent=70_000)]
    download(_archive(server), tmp_path, replace(QUICK, stall_s=1.0, tries=20))
    _only(tmp_path)
    assert server.asked[2] == ("a.tgz", "bytes=70000-")


def test_server_that_hangs_for_ever_is_given_up(server: FileServer, tmp_path: Path) -> None:
    server.faults = [hang(server)] * 9
    with pytest.raises(DataPrepError, match=r"no answer in time .*after 3 tries") as caught:
        download(_archive(server), tmp_path, replace(QUICK, stall_s=0.2))
    _has_remedy(caught.value, server, tmp_path)


def test_drip_does_not_outlast_the_deadline(server: FileServer, tmp_path: Path) -> None:
    def drip(request: BaseHTTPRequestHandler, content: bytes) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        for place in range(len(content)):
            if server.released.wait(0.05):
                break
            try:
                request.wfile.write(content[place : place + 1])
            except OSError:
                break
        request.close_connection = True

    server.faults = [drip]
    with pytest.raises(DataPrepError, match=r"not done within 0.5 s") as caught:
        download(_archive(server), tmp_path, replace(QUICK, total_s=0.5))
    _has_remedy(caught.value, server, tmp_path)


def test_wrong_part_from_the_server_is_not_stored(server: FileServer, tmp_path: Path) -> None:
    def wrong(request: BaseHTTPRequestHandler, content: bytes) -> None:
        request.send_response(206)
        request.send_header("Content-Range", f"bytes 5-9/{len(content)}")
        request.send_header("Content-Length", "5")
        request.end_headers()
        request.wfile.write(content[5:10])

    server.faults = [cut_after(server, 100_000), wrong]
    download(_archive(server, None), tmp_path, QUICK)
    _only(tmp_path)


def test_bytes_are_stored_as_sent_even_when_called_encoded(server: FileServer, tmp_path: Path) -> None:
    # Some servers call a .tar.gz "gzip-encoded"; undoing that would store another file than the published one.
    import gzip

    packed = gzip.compress(CONTENT)

    def encoded(request: BaseHTTPRequestHandler, content: bytes) -> None:
        request.send_response(200)
        request.send_header("Content-Encoding", "gzip")
        request.send_header("Content-Length", str(len(packed)))
        request.end_headers()
        request.wfile.write(packed)

    server.faults = [encoded]
    download(_archive(server, packed), tmp_path, QUICK)
    _only(tmp_path, packed)


def test_redirection_is_followed(server: FileServer, tmp_path: Path) -> None:
    server.faults = [status(302, Location=f"{server.url}/a.tgz")]
    download(_archive(server), tmp_path, QUICK)
    _only(tmp_path)


def test_nobody_answering_says_what_to_do(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        archive = Archive(url=f"http://127.0.0.1:{taken.getsockname()[1]}/a.tgz", file_name="a.tgz")
        with pytest.raises(DataPrepError, match="offline") as caught:
            download(archive, tmp_path, QUICK)
    assert "refused" in str(caught.value)
    assert archive.url in str(caught.value)
    assert str(tmp_path / "a.tgz") in str(caught.value)


def test_unknown_host_says_what_to_do(tmp_path: Path) -> None:
    archive = Archive(url="http://host.invalid/a.tgz", file_name="a.tgz")
    with pytest.raises(DataPrepError, match=r"^http://host.invalid/a.tgz: no connection .*offline"):
        download(archive, tmp_path, QUICK)


@pytest.mark.parametrize("url", ["a.tgz", "ftp://127.0.0.1/a.tgz", "http://"])
def test_url_that_is_none_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(DataPrepError, match="cannot be fetched"):
        download(Archive(url=url, file_name="a.tgz"), tmp_path, QUICK)


def test_wrong_file_that_is_there_is_named_and_kept(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "a.tgz").write_bytes(OTHER)
    with pytest.raises(DataPrepError, match="delete it to fetch it again"):
        download(_archive(server), tmp_path, QUICK)
    _only(tmp_path, OTHER)
    assert server.asked == []


def test_second_process_is_told_to_wait(server: FileServer, tmp_path: Path) -> None:
    with (tmp_path / "a.tgz.part").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(DataPrepError, match="another process"):
            download(_archive(server), tmp_path, QUICK)
    download(_archive(server), tmp_path, QUICK)
    _only(tmp_path)


def test_files_at_once_do_not_disturb_each_other(server: FileServer, tmp_path: Path) -> None:
    server.files |= {f"{number}": random.Random(number).randbytes(50_000) for number in range(6)}
    threads = [
        threading.Thread(
            target=download, args=(Archive(f"{server.url}/{number}", f"{number}"), tmp_path, QUICK), daemon=True
        )
        for number in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for number in range(6):
        assert (tmp_path / f"{number}").read_bytes() == server.files[f"{number}"]


def _has_remedy(error: DataPrepError, server: FileServer, folder: Path) -> None:
    assert "\n" not in str(error)
    assert str(error).startswith(f"{server.url}/a.tgz: ")
    assert f"put it at {folder / 'a.tgz'}" in str(error)
