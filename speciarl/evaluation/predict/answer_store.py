"""Answer store: every answer of one set-up (model, sampling, engine) in one SQLite file, durable when `add` returns.

SQLite's write-ahead log is the journal: a process that is killed, or a disk that fills up, leaves all answers of
finished transactions and nothing of others.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from speciarl.errors import DataError
from speciarl.evaluation.predict.answer import Answer
from speciarl.evaluation.predict.key import setup_id

VERSION = 1
_GREEDY = -1
"""Stands for no seed, since NULL equals nothing in an index."""
_TABLES = """
CREATE TABLE IF NOT EXISTS setup (version INTEGER NOT NULL, fields TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS answers (
    prompt BLOB NOT NULL, images BLOB NOT NULL, seed INTEGER NOT NULL, text TEXT NOT NULL, tokens INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL, finish_reason TEXT NOT NULL, image_width INTEGER NOT NULL,
    image_height INTEGER NOT NULL, PRIMARY KEY (images, prompt, seed)
);
"""
_FIELDS = "seed, text, tokens, prompt_tokens, finish_reason, image_width, image_height"

Keyed = tuple[bytes, bytes, Answer]
"""Hash of the prompt, hash of the images, and an answer to them."""


class AnswerStore:
    """The answers of one set-up. One process at a time: another is refused, so that none is made twice."""

    def __init__(self, folder: Path, setup: Mapping[str, Any], read_only: bool = False) -> None:
        """Open the file of a set-up, or make it; `read_only`, one that is there. Raises DataError in one line where
        that cannot be."""
        self.path = store_file(folder, setup)
        with self._explained():
            if read_only:
                self._connection = _read_only(self.path)
                return
            folder.mkdir(parents=True, exist_ok=True)
            # check_same_thread: answers are written in a thread, but never in two at once.
            self._connection = sqlite3.connect(self.path, timeout=1.0, isolation_level=None, check_same_thread=False)
            self._connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute("BEGIN EXCLUSIVE")
            for statement in filter(str.strip, _TABLES.split(";")):
                self._connection.execute(statement)
            if self._connection.execute("SELECT version FROM setup").fetchone() is None:
                self._connection.execute("INSERT INTO setup VALUES (?, ?)", (VERSION, _json(setup)))
            self._connection.execute("COMMIT")

    def add(self, answers: Iterable[Keyed]) -> None:
        """Keep answers, durable on return; of two to the same key the first stays."""
        rows = [(prompt, images, *_row(answer)) for prompt, images, answer in answers]
        with self._explained():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                self._connection.executemany("INSERT OR IGNORE INTO answers VALUES (?,?,?,?,?,?,?,?,?)", rows)
                self._connection.execute("COMMIT")
            except BaseException:
                # SQLite has already rolled back after some errors, a full disk for one.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def missing(self, prompt: bytes, images: bytes, seeds: Sequence[int | None]) -> list[int | None]:
        """Which of some seeds have no answer yet, in their order."""
        with self._explained():
            known = self._connection.execute(
                "SELECT seed FROM answers WHERE prompt = ? AND images = ? AND seed BETWEEN ? AND ?",
                (prompt, images, _stored(seeds[0]), _stored(seeds[-1])),
            )
            found = {seed for (seed,) in known}
        return [seed for seed in seeds if _stored(seed) not in found]

    def answers(self, prompt: bytes, images: bytes, seeds: Sequence[int | None]) -> dict[int | None, Answer]:
        """The answers that there are, by seed."""
        with self._explained():
            rows = self._connection.execute(
                f"SELECT {_FIELDS} FROM answers WHERE prompt = ? AND images = ? AND seed BETWEEN ? AND ?",
                (prompt, images, _stored(seeds[0]), _stored(seeds[-1])),
            ).fetchall()
        found = [Answer(None if seed == _GREEDY else seed, *rest) for seed, *rest in rows]
        return {answer.seed: answer for answer in found}

    def knows_images(self, images: bytes) -> bool:
        """Whether some images were asked about, with any prompt; tells a changed prompt from a changed image."""
        with self._explained():
            query = "SELECT 1 FROM answers WHERE images = ? LIMIT 1"
            return self._connection.execute(query, (images,)).fetchone() is not None

    def close(self) -> None:
        """Write the journal into the file and release it."""
        with self._explained():
            self._connection.close()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise _explanation(self.path, error) from error


def store_file(folder: Path, setup: Mapping[str, Any]) -> Path:
    """The file of a set-up."""
    return folder / f"{setup_id(setup)}.sqlite"


def setups(folder: Path) -> Iterator[dict[str, Any]]:
    """The set-ups of which a folder holds answers; files that cannot be read, such as one in use, are left out."""
    for path in sorted(folder.glob("*.sqlite")):
        with contextlib.suppress(sqlite3.Error), contextlib.closing(_read_only(path)) as connection:
            row = connection.execute("SELECT fields FROM setup").fetchone()
            if row is not None:
                fields: dict[str, Any] = json.loads(row[0])
                yield fields


def _read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=1.0)


def _row(answer: Answer) -> tuple[Any, ...]:
    # A lone surrogate, which a tokenizer may emit, has no encoding in UTF-8.
    text = answer.text.encode("utf-8", "replace").decode()
    return (
        _stored(answer.seed), text, answer.tokens, answer.prompt_tokens, answer.finish_reason,
        answer.image_width, answer.image_height,
    )  # fmt: skip


def _stored(seed: int | None) -> int:
    return _GREEDY if seed is None else seed


def _json(setup: Mapping[str, Any]) -> str:
    return json.dumps(setup, sort_keys=True, ensure_ascii=False)


def _explanation(path: Path, error: sqlite3.Error) -> Exception:
    text = str(error)
    if "locked" in text or "busy" in text:
        return DataError(f"{path} is in use by another evaluation; wait for it, or set `answers` to another folder")
    if "full" in text or "disk I/O" in text:
        return OSError(None, f"{text}; all answers until now are kept, so free some space and start again", str(path))
    if "readonly" in text or "unable to open" in text:
        return OSError(None, f"{text}; check its permissions, or set `answers` to another folder", str(path))
    return DataError(f"{path} is damaged ({text}); move it away, and its answers are made again")
