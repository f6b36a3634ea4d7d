"""Unpacking of tar and zip archives from untrusted sources."""

from __future__ import annotations

import errno
import gzip
import lzma
import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from speciarl.errors import DataPrepError

CHUNK = 1 << 20
_DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    gzip.BadGzipFile,
    NotImplementedError,  # zipfile: a method or version that does not exist
    UnicodeDecodeError,
)


@dataclass(frozen=True)
class Limits:
    """Limits on what an archive may unpack to."""

    max_bytes: int = 64 << 30
    max_files: int = 2_000_000
    """Files and directories together."""
    max_ratio: float = 200.0
    """Unpacked bytes per byte of the archive: pictures have about 1, text up to 20."""
    free_bytes: int = 64 << 20
    """Unpacked bytes from which on `max_ratio` applies: a small archive may hold a long list."""


@dataclass(frozen=True)
class _Entry:
    """One member: a directory when `open` is None."""

    name: str
    open: Callable[[], IO[bytes] | None] | None


def unpack(
    archive: Path, into: Path, limits: Limits | None = None, progress: Callable[[int], object] | None = None
) -> int:
    """Unpack a .tar (also compressed) or .zip archive into the directory `into`; returns the number of files.

    The content is written to a temporary directory inside `into` first and moved when all of it is there, file by file
    into directories that exist already; files of the same name are replaced, others are left alone. `progress` gets
    the number of bytes of each write. Links within the archive become copies of what they point at.

    Raises DataPrepError, with nothing moved, for a damaged archive, a path or link that leads out, a device or other
    special file, a password, and content beyond the `limits`; OSError when `into` cannot be written.
    """
    into.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=into))
    try:
        try:
            files = _write(archive, draft, limits or Limits(), progress or (lambda _: None))
        except _DAMAGED as error:
            raise _damaged(archive, error) from error
        except OSError as error:
            if error.errno == errno.EINVAL:  # zipfile: an offset before the file's start
                raise _damaged(archive, error) from error
            raise
        _merge(draft, into)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return files


def _damaged(archive: Path, error: Exception) -> DataPrepError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return DataPrepError(f"{archive}: damaged or cut short ({reason}); delete it and fetch it again")


def _write(archive: Path, draft: Path, limits: Limits, progress: Callable[[int], object]) -> int:
    packed = archive.stat().st_size
    most = min(limits.max_bytes, max(limits.free_bytes, int(packed * limits.max_ratio)))
    entries = files = written = 0
    with closing(_entries(archive)) as members:
        for entry in members:
            entries += 1
            if entries > limits.max_files:
                raise DataPrepError(f"{archive}: more than {limits.max_files} files; refused (limit max_files)")
            target = draft.joinpath(*_parts(archive, entry.name))
            if entry.open is None:
                _make_folder(archive, target, entry.name)
                continue
            _make_folder(archive, target.parent, entry.name)
            if target.is_dir():
                raise DataPrepError(f"{archive}: '{entry.name}' is a file and a directory; refused")
            # Counted while it is written: the sizes in an archive's own headers may lie.
            source = entry.open()
            if source is None:
                raise DataPrepError(f"{archive}: '{entry.name}' has no content; refused")
            with source, target.open("wb") as out:
                while chunk := source.read(CHUNK):
                    written += len(chunk)
                    if written > most:
                        raise DataPrepError(
                            f"{archive}: unpacks to more than {most} bytes from {packed} "
                            "(limits max_bytes, max_ratio): refused as a decompression bomb"
                        )
                    out.write(chunk)
                    progress(len(chunk))
            files += 1
    return files


def _parts(archive: Path, name: str) -> tuple[str, ...]:
    """The parts of a member's path. Raises DataPrepError for a path that could lead out of the target directory."""
    path = PurePosixPath(name)
    outside = path.is_absolute() or ".." in path.parts
    if outside or "\0" in name or "\\" in name or (name[1:2] == ":" and name[0].isalpha()):
        raise DataPrepError(f"{archive}: the path '{name}' leads out of the archive; refused, get it from its home")
    return path.parts


def _make_folder(archive: Path, folder: Path, name: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise DataPrepError(f"{archive}: '{name}' lies below a file; refused") from error


def _entries(archive: Path) -> Generator[_Entry, None, None]:
    # A .tar may hold a zip that is_zipfile would find at its end, so tar is tried first.
    if tarfile.is_tarfile(archive):
        yield from _tar_entries(archive)
    elif zipfile.is_zipfile(archive):
        yield from _zip_entries(archive)
    else:
        raise DataPrepError(f"{archive}: neither a tar nor a zip archive; delete it and fetch it again")


def _tar_entries(archive: Path) -> Generator[_Entry, None, None]:
    """Members of a tar archive. Links come last, when every file that they may point at is known."""
    regular: dict[str, tarfile.TarInfo] = {}
    links: list[tarfile.TarInfo] = []
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.isdir():
                yield _Entry(member.name, None)
            elif member.isreg():
                regular[os.path.normpath(member.name)] = member
                yield _Entry(member.name, partial(tar.extractfile, member))
            elif member.issym() or member.islnk():
                links.append(member)
            else:
                raise DataPrepError(f"{archive}: '{member.name}' is a device or special file; refused")
        _read_to_end(archive, tar)
        for link in links:
            pointed = regular.get(_target(archive, link))
            if pointed is None:
                raise DataPrepError(
                    f"{archive}: the link '{link.name}' does not point at a file of it ({link.linkname}); refused"
                )
            yield _Entry(link.name, partial(tar.extractfile, pointed))


def _read_to_end(archive: Path, tar: tarfile.TarFile) -> None:
    """Read on behind the last member, so that the checksum at the end of a compressed stream is compared."""
    for _ in range(Limits.free_bytes // CHUNK):
        if tar.fileobj is None or not tar.fileobj.read(CHUNK):
            return
    raise DataPrepError(f"{archive}: more than {Limits.free_bytes} bytes follow the last file; refused")


def _target(archive: Path, link: tarfile.TarInfo) -> str:
    """Path of the member that a link names: from its own directory if symbolic, from the top if hard."""
    start = PurePosixPath(link.name).parent if link.issym() else PurePosixPath()
    target = os.path.normpath(start / link.linkname)
    if os.path.isabs(target) or target.split("/")[0] == "..":
        raise DataPrepError(f"{archive}: the link '{link.name}' leads out of the archive ({link.linkname}); refused")
    return target


def _zip_entries(archive: Path) -> Generator[_Entry, None, None]:
    with zipfile.ZipFile(archive) as packed:
        for member in packed.infolist():
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise DataPrepError(f"{archive}: '{member.filename}' is a link or special file; refused")
            if member.flag_bits & 1:
                raise DataPrepError(f"{archive}: '{member.filename}' needs a password; unpack it by hand")
            if member.is_dir():
                yield _Entry(member.filename, None)
            else:
                yield _Entry(member.filename, partial(packed.open, member))


def _merge(draft: Path, into: Path) -> None:
    """Move everything below `draft` to the same place below `into`; whole directories where they are new."""
    for child in sorted(draft.iterdir()):
        target = into / child.name
        if child.is_dir() and target.is_dir():
            _merge(child, target)
        else:
            os.replace(child, target)
