"""Unpacking: what is good comes out whole, what is hostile or broken leaves nothing behind."""

import gzip
import io
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from data_prep.download.archive import Limits, unpack
from speciarl.errors import DataPrepError


def _member(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, link: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.size, member.linkname = kind, size, link
    return member


def _tar(file: Path, *members: tuple[tarfile.TarInfo, bytes] | tarfile.TarInfo, mode: str = "w:gz") -> Path:
    with tarfile.open(file, mode) as out:  # type: ignore[call-overload]
        for member in members:
            info, content = member if isinstance(member, tuple) else (member, b"")
            info.size = len(content)
            out.addfile(info, io.BytesIO(content))
    return file


def _file(name: str, content: bytes = b"content") -> tuple[tarfile.TarInfo, bytes]:
    return _member(name), content


def _zip(file: Path, content: dict[str, bytes], mode: int = 0) -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as out:
        for name, data in content.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            out.writestr(info, data)
    return file


def _tree(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


GOOD = {"top/a.txt": b"A", "top/deep/b.bin": b"\0" * 5000, "c": b"", "öäü/d e.jpg": b"D"}


@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz", "x.tgz", "x.tar.bz2", "x.tar.xz", "x.zip"])
def test_archive_comes_out_as_it_went_in(tmp_path: Path, name: str) -> None:
    if name.endswith(".zip"):
        archive = _zip(tmp_path / name, GOOD | {"empty/": b""})
    else:
        mode = {"tar": "w", "gz": "w:gz", "tgz": "w:gz", "bz2": "w:bz2", "xz": "w:xz"}[name.split(".")[-1]]
        members = [_file(path, content) for path, content in GOOD.items()]
        archive = _tar(tmp_path / name, _member("empty", tarfile.DIRTYPE), *members, mode=mode)
    told: list[int] = []
    assert unpack(archive, tmp_path / "out", progress=told.append) == len(GOOD)
    assert _tree(tmp_path / "out") == GOOD
    assert (tmp_path / "out" / "empty").is_dir()
    assert sum(told) == sum(map(len, GOOD.values()))
    assert [child.name for child in (tmp_path / "out").glob(".*")] == []


def test_content_joins_what_is_there(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "top" / "deep").mkdir(parents=True)
    (out / "top" / "mine.txt").write_bytes(b"mine")
    (out / "top" / "a.txt").write_bytes(b"old")
    unpack(_tar(tmp_path / "x.tgz", *[_file(path, content) for path, content in GOOD.items()]), out)
    assert _tree(out) == GOOD | {"top/mine.txt": b"mine"}


def test_links_within_become_copies(tmp_path: Path) -> None:
    archive = _tar(
        tmp_path / "x.tgz",
        _member("d/early", tarfile.SYMTYPE, link="../a"),
        _file("./a", b"A"),
        _member("hard", tarfile.LNKTYPE, link="a"),
    )
    assert unpack(archive, tmp_path / "out") == 3
    assert _tree(tmp_path / "out") == {"a": b"A", "d/early": b"A", "hard": b"A"}
    assert not any(file.is_symlink() for file in (tmp_path / "out").rglob("*"))


HOSTILE_TARS: dict[str, tuple[list[tarfile.TarInfo | tuple[tarfile.TarInfo, bytes]], str]] = {
    "parent": ([_file("../evil")], "leads out"),
    "parent inside": ([_file("a/../../evil")], "leads out"),
    "absolute": ([_file("/tmp/evil")], "leads out"),
    "backslash": ([_file("..\\evil")], "leads out"),
    "drive": ([_file("C:evil")], "leads out"),
    "directory outside": ([_member("../evil", tarfile.DIRTYPE)], "leads out"),
    "symlink out": ([_member("out", tarfile.SYMTYPE, link="../..")], "leads out"),
    "symlink to absolute": ([_member("out", tarfile.SYMTYPE, link="/etc/passwd")], "leads out"),
    "hard link out": ([_member("out", tarfile.LNKTYPE, link="../evil")], "leads out"),
    "link named outside": ([_file("a"), _member("../b", tarfile.SYMTYPE, link="a")], "leads out"),
    "write through a link": (
        [_member("d", tarfile.DIRTYPE), _member("l", tarfile.SYMTYPE, link="d"), _file("l/evil")],
        "does not point at a file",
    ),
    "link to itself": ([_member("l", tarfile.SYMTYPE, link="l")], "does not point at a file"),
    "link to nothing": ([_member("l", tarfile.SYMTYPE, link="gone")], "does not point at a file"),
    "device": ([_member("null", tarfile.CHRTYPE)], "device"),
    "pipe": ([_member("pipe", tarfile.FIFOTYPE)], "device"),
    "file below a file": ([_file("a"), _file("a/b")], "below a file"),
    "file over a directory": ([_file("a/b"), _file("a")], "a file and a directory"),
}


@pytest.mark.parametrize("case", HOSTILE_TARS)
def test_hostile_tar_is_refused_and_leaves_nothing(tmp_path: Path, case: str) -> None:
    members, reason = HOSTILE_TARS[case]
    archive = _tar(tmp_path / "x.tar", _file("good"), *members, mode="w")
    _refused(archive, tmp_path, reason)


@pytest.mark.parametrize(
    ("content", "mode", "reason"),
    [
        ({"../evil": b""}, 0, "leads out"),
        ({"/evil": b""}, 0, "leads out"),
        ({"a/../../evil": b""}, 0, "leads out"),
        ({"..\\evil": b""}, 0, "leads out"),
        ({"link": b"../.."}, 0o120777, "link or special"),
        ({"null": b""}, 0o020666, "link or special"),
    ],
)
def test_hostile_zip_is_refused_and_leaves_nothing(
    tmp_path: Path, content: dict[str, bytes], mode: int, reason: str
) -> None:
    _refused(_zip(tmp_path / "x.zip", {"good": b"G", **content}, mode), tmp_path, reason)


def test_zip_with_a_password_is_refused(tmp_path: Path) -> None:
    archive = _zip(tmp_path / "x.zip", {"secret": b"S"})
    raw = bytearray(archive.read_bytes())
    # Bit 0 of the flags, in the local header and in the directory.
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        raw[raw.find(signature) + offset] |= 1
    archive.write_bytes(raw)
    _refused(archive, tmp_path, "password")


BOMBS: dict[str, Callable[[Path], Path]] = {
    "tar": lambda folder: _tar(folder / "x.tgz", _file("zeros", bytes(3_000_000))),
    "zip": lambda folder: _zip(folder / "x.zip", {"zeros": bytes(3_000_000)}),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_bomb_is_refused_by_ratio_and_by_size(tmp_path: Path, kind: str) -> None:
    archive = BOMBS[kind](tmp_path)
    _refused(archive, tmp_path, "decompression bomb", Limits(free_bytes=1_000_000))
    _refused(archive, tmp_path, "decompression bomb", Limits(max_bytes=2_999_999))
    assert unpack(archive, tmp_path / "fine", Limits(max_bytes=3_000_000)) == 1


def test_zip_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    archive = _zip(tmp_path / "x.zip", {"zeros": bytes(3_000_000)})
    raw = bytearray(archive.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", raw, raw.find(signature) + offset, 10)
    archive.write_bytes(raw)
    _refused(archive, tmp_path, "damaged", Limits(max_bytes=1_000_000))


def test_number_of_files_is_bounded(tmp_path: Path) -> None:
    archive = _tar(tmp_path / "x.tgz", *[_file(str(number)) for number in range(11)])
    _refused(archive, tmp_path, "more than 10 files", Limits(max_files=10))


@pytest.mark.parametrize("name", ["x.tar.gz", "x.tar", "x.zip"])
@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_archive_that_was_cut_short_leaves_nothing(tmp_path: Path, name: str, kept: float) -> None:
    content = {f"{number}": bytes([number]) * 40_000 for number in range(20)}
    if name == "x.zip":
        archive = _zip(tmp_path / name, content)
    else:
        members = [_file(path, data) for path, data in content.items()]
        archive = _tar(tmp_path / name, *members, mode="w" if name == "x.tar" else "w:gz")
    archive.write_bytes(archive.read_bytes()[: int(archive.stat().st_size * kept)])
    _refused(archive, tmp_path, "damaged or cut short|neither a tar nor a zip")


def test_damaged_bytes_are_found_by_the_archives_own_checks(tmp_path: Path) -> None:
    archive = _zip(tmp_path / "x.zip", {"a": bytes(range(256)) * 100})
    raw = bytearray(archive.read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    archive.write_bytes(raw)
    _refused(archive, tmp_path, "damaged")


@pytest.mark.parametrize("place", [-8, -1])
def test_checksum_behind_the_last_file_is_compared(tmp_path: Path, place: int) -> None:
    archive = _tar(tmp_path / "x.tgz", _file("a", bytes(range(256)) * 100))
    raw = bytearray(archive.read_bytes())
    raw[place] ^= 0xFF
    archive.write_bytes(raw)
    _refused(archive, tmp_path, "damaged")


def test_endless_padding_is_refused(tmp_path: Path) -> None:
    archive = _tar(tmp_path / "x.tar", _file("a"), mode="w")
    archive.write_bytes(gzip.compress(archive.read_bytes() + bytes(65 << 20), 1))
    _refused(archive, tmp_path, "follow the last file")


def test_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "x.tgz"
    page.write_bytes(b"<html>404</html>" * 100)
    _refused(page, tmp_path, "neither a tar nor a zip")


def _refused(archive: Path, folder: Path, reason: str, limits: Limits | None = None) -> None:
    out = folder / "out"
    with pytest.raises(DataPrepError, match=reason) as caught:
        unpack(archive, out, limits)
    assert archive.name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(out.rglob("*")) == []
    assert sorted(child.name for child in folder.iterdir()) == sorted({archive.name, "out"})
