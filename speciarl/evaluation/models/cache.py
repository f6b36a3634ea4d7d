"""Cache of models that were made from others: each is made once, in one piece, and checked whenever it is used."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from speciarl.errors import DataError
from speciarl.evaluation.models.fingerprint import fingerprint

Say = Callable[[str], None]
_MANIFEST = "made.json"


def made(cache: Path, kind: str, sha: str, make: Callable[[Path], None], say: Say) -> Path:
    """Directory ``CACHE/KIND-HASH``, which `make` fills where it is not there yet, or no longer as it was made.

    `sha` (``ALGORITHM:HEX``) is the hash of all that it is made from. An interruption leaves no directory; two
    processes do not make the same one twice. Raises DataError in one line when it cannot be written.
    """
    folder = cache / f"{kind}-{sha.partition(':')[2][:32]}"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with _lock(cache / f".{folder.name}.lock", say):
            if folder.is_dir():
                if _intact(folder):
                    return folder
                say(f"{folder} is not as it was made; it is made again")
                shutil.rmtree(folder)
            draft = cache / f".{folder.name}.draft"
            shutil.rmtree(draft, ignore_errors=True)  # what a killed process left
            draft.mkdir()
            try:
                make(draft)
                _seal(draft)
                os.replace(draft, folder)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        raise DataError(
            f"{folder} cannot be written ({error.strerror or error}); make room there, or choose another folder"
        ) from error
    return folder


@contextlib.contextmanager
def _lock(file: Path, say: Say) -> Iterator[None]:
    with file.open("w") as handle:  # the kernel lets go of the lock when its owner dies
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another process makes {file.name[1:].removesuffix('.lock')}; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _content(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.name != _MANIFEST]


def _seal(folder: Path) -> None:
    (folder / _MANIFEST).write_text(json.dumps({"content": fingerprint(folder, _content(folder))}) + "\n")
    for path in [*_content(folder), folder / _MANIFEST]:
        with path.open("rb+") as file:
            os.fsync(file)  # before the folder has its name: a loss of power must not leave empty files under it


def _intact(folder: Path) -> bool:
    try:
        recorded = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(recorded == {"content": fingerprint(folder, _content(folder))})
