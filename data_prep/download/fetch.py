"""Fetching of a dataset's archives: found, given by the user, or downloaded; then checked and unpacked."""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from data_prep.download.archive import Limits, unpack
from data_prep.download.http import Policy, Progress, by_hand, download, fault_of
from data_prep.readers.base import About, Archive
from speciarl.errors import DataPrepError
from speciarl.utils.atomic_files import replacing, write_text

MARKERS = ".fetched"
"""Directory inside the root with one marker file per archive that is unpacked to the end."""


def fetch(
    about: About,
    root: Path,
    *,
    source: Path | None = None,
    offline: bool = False,
    bars: bool = True,
    keep_archives: bool = True,
    say: Callable[[str], object] = lambda _: None,
    policy: Policy | None = None,
    limits: Limits | None = None,
) -> Path:
    """Make a dataset ready to be read; returns the folder to read it from, which is `root` unless `source` is one.

    `source` is what the user has: an archive (others of the dataset are looked for beside it), a folder with archives,
    or a folder with the unpacked dataset, which is used where it is. What is missing is taken from `root`, where it may
    lie as archives or unpacked by hand, and is downloaded otherwise, unless `offline`. What is finished is not done
    again; an interrupted run goes on where it was. With `bars` a terminal sees progress bars; `say` gets each step
    in a line. Without `keep_archives` an archive that was downloaded is deleted once it is unpacked.

    Raises DataPrepError (one line with the remedy) as `download` and `unpack` do, and for a source that is not this
    dataset; OSError when `root` cannot be written.
    """
    if not about.archives:
        return root
    if source is not None:
        if not source.exists():
            raise DataPrepError(f"{source}: no such file or folder")
        if source.is_dir() and all(_present(source, _witness(archive)) for archive in about.archives):
            say(f"{about.name}: used as it is in {source}")
            return source
    with _locked(root):
        for archive in about.archives:
            if _finished(root, archive):
                say(f"{archive.file_name}: already there")
                continue
            given = _given(about, archive, source)
            file = given or _obtain(archive, root, offline, bars, policy, say)
            if archive.unpack:
                say(f"{archive.file_name}: {_unpack(archive, file, root, bars, limits)} files unpacked into {root}")
                if given is None and not keep_archives:
                    file.unlink()
            elif file != root / archive.file_name:
                with replacing(root / archive.file_name) as draft:
                    shutil.copyfile(file, draft)
                say(f"{archive.file_name}: copied to {root}")
    return root


def _given(about: About, archive: Archive, source: Path | None) -> Path | None:
    """The user's own copy of an archive, checked; None when the source does not have it."""
    if source is None:
        return None
    names = [other.file_name for other in about.archives]
    if source.is_dir():
        file = source / archive.file_name
        if not any((source / name).is_file() for name in names):
            missing = next(place for other in about.archives if not _present(source, place := _witness(other)))
            raise DataPrepError(
                f"{source}: neither the unpacked dataset {about.name} ({missing} is missing) "
                f"nor its archives ({', '.join(names)}) are there"
            )
    elif source.name in names:
        file = source.with_name(archive.file_name)
    elif len(names) == 1:
        file = source
    else:
        raise DataPrepError(f"{source}: the archives of {about.name} are called {', '.join(names)}; rename yours")
    if not file.is_file():
        return None
    if fault := fault_of(archive, file):
        raise DataPrepError(f"{file}: {fault}; get {archive.url} again, or unpack yours by hand and give that folder")
    return file


def _obtain(
    archive: Archive, root: Path, offline: bool, bars: bool, policy: Policy | None, say: Callable[[str], object]
) -> Path:
    if offline and not (root / archive.file_name).exists():
        raise DataPrepError(f"{archive.file_name} is not in {root}; {by_hand(archive, root)}")
    with _bar(archive.file_name, archive.size_bytes, bars) as progress:
        return download(archive, root, policy, progress, say)


def _unpack(archive: Archive, file: Path, root: Path, bars: bool, limits: Limits | None) -> int:
    """Unpack an archive and those inside it, and write its marker; returns the number of files."""
    # A kill while files are moved into place leaves this, so that half a dataset is not taken for one unpacked by hand.
    begun = _marker(root, archive).with_suffix(".begun")
    write_text(begun, "")
    with _bar(f"unpacking {archive.file_name}", None, bars) as progress:
        files = unpack(file, root, limits, progress)
        for inner in archive.inner:
            if not (root / inner).is_file():
                raise DataPrepError(f"{file}: {inner} is not in it; {by_hand(archive, root)}")
            files += unpack(root / inner, root, limits, progress)
    if archive.witness and not _present(root, archive.witness):
        raise DataPrepError(f"{file}: {archive.witness} is not in it; {by_hand(archive, root)}")
    content = {"url": archive.url, "bytes": file.stat().st_size, "files": files}
    write_text(_marker(root, archive), f"{json.dumps(content)}\n")
    begun.unlink()
    return files


def _finished(root: Path, archive: Archive) -> bool:
    """Whether an archive's content is there: unpacked by us to the end, or by hand."""
    if _marker(root, archive).with_suffix(".begun").exists():
        return False
    if not archive.unpack and (root / archive.file_name).exists():
        return False  # `download` checks it.
    return _present(root, _witness(archive)) if _witness(archive) else _marker(root, archive).exists()


def _present(root: Path, witness: str) -> bool:
    """Whether a published path exists below `root`, which may itself be a folder on the way to it. False for ""."""
    parts = PurePosixPath(witness).parts
    return any(root.joinpath(*parts[depth:]).exists() for depth in range(len(parts)))


def _witness(archive: Archive) -> str:
    return archive.witness or ("" if archive.unpack else archive.file_name)


def _marker(root: Path, archive: Archive) -> Path:
    return root / MARKERS / f"{archive.file_name}.json"


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    """Lock on a root against other processes that fetch into it; removes what a killed run left half unpacked."""
    (root / MARKERS).mkdir(parents=True, exist_ok=True)
    with (root / MARKERS / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataPrepError(f"{root}: another process is fetching into it; wait for it") from error
        for left in root.glob(".unpacking-*"):
            shutil.rmtree(left, ignore_errors=True)
        yield


@contextmanager
def _bar(what: str, total: int | None, bars: bool) -> Iterator[Progress]:
    from tqdm import tqdm

    # `disable=None`: tqdm shows the bar on a terminal only.
    with tqdm(total=total, desc=what, unit="B", unit_scale=True, disable=None if bars else True) as bar:
        yield bar.update
