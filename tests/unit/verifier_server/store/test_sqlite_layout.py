"""The SQLite file as a person reads it, records as rows, and files of the layout before."""

import dataclasses
import logging
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciarl.category import Category
from speciarl.verdict import Pair, Source, Verdict
from speciarl.verifier_server.store import JudgeIdentity, Record, StoreError, sqlite_file, sqlite_layout
from speciarl.verifier_server.store.record import CorruptRecord, checksum_of, encode
from speciarl.verifier_server.store.sqlite_layout import COLUMNS, INTO_VERDICTS, create, record_of, row_of
from speciarl.verifier_server.store.sqlite_store import FileStore

pytestmark = pytest.mark.anyio

LAYOUT_1 = Path(__file__).with_name("layout_1.sqlite")
"""20 verdicts as a release with layout 1 wrote them, the last of JUDGE cut short."""
JUDGE = JudgeIdentity("vllm", "org/judge", "main", "prompt", ("wrong", "right"), "first_token", "{}", normaliser=1)
OTHER = dataclasses.replace(JUDGE, model="org/other", revision=None)

texts = st.text(st.characters(codec="utf-8"), max_size=30)
records = st.builds(
    Record,
    judge=st.binary(min_size=32, max_size=32),
    pair=st.builds(Pair, texts, texts),
    verdict=st.builds(
        Verdict,
        category=st.sampled_from(Category),
        margin=st.none() | st.floats(0, 1e300),
        source=st.just(Source.STORE),
        probabilities=st.none() | st.tuples(*[st.floats(0, 1)] * 6),
    ),
    created_us=st.integers(0, 2**63 - 1),
)


def stored(number: int, judge: JudgeIdentity) -> Record:
    """What LAYOUT_1 holds."""
    numbers: dict[str, Any] = {"margin": None} if judge is OTHER else {"margin": number / 7}
    if judge is JUDGE:
        numbers["probabilities"] = (0.1, 0.2, 0.3, 0.1, 0.1, 0.2)
    verdict = Verdict(Category(number % 6), source=Source.STORE, **numbers)
    return Record(judge.fingerprint, Pair("löwe", f"cat {number}"), verdict, number * 1_000_000)


STORED = [stored(number, JUDGE) for number in range(12)] + [stored(number, OTHER) for number in range(7)]
CUT = stored(12, JUDGE)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return Path(shutil.copy(LAYOUT_1, tmp_path / "verdicts.db"))


def ask(path: Path, sql: str, *values: object) -> list[Any]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(sql, values).fetchall()
    finally:
        connection.close()


def through_sqlite(*rows: Sequence[Any]) -> list[Any]:
    connection = sqlite3.connect(":memory:")
    create(connection)
    connection.executemany(f"INSERT {INTO_VERDICTS}", rows)
    connection.text_factory = bytes
    found = connection.execute(f"SELECT {COLUMNS} FROM verdicts").fetchall()
    connection.close()
    return found


@given(records)
def test_a_record_comes_back_from_its_columns(record: Record) -> None:
    (row,) = through_sqlite(row_of(record))
    assert record_of(record.key, row) == record


@given(records, records)
def test_the_columns_of_one_record_under_the_key_of_another_are_refused(one: Record, other: Record) -> None:
    (row,) = through_sqlite((other.key, *row_of(one)[1:]))
    if one.key != other.key:
        with pytest.raises(CorruptRecord, match="another key"):
            record_of(other.key, row)


@given(records, records, st.data())
def test_a_column_of_another_record_is_noticed(one: Record, other: Record, data: st.DataObject) -> None:
    mixed = list(row_of(one))
    at = data.draw(st.integers(1, len(mixed) - 1))
    if row_of(other)[at] != mixed[at]:
        mixed[at] = row_of(other)[at]
        (row,) = through_sqlite(mixed)
        with pytest.raises(CorruptRecord):
            record_of(one.key, row)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_probability_that_is_none_is_refused_though_the_checksum_fits(value: float) -> None:
    verdict = Verdict(Category.WRONG, None, Source.STORE, (value, 0.0, 0.0, 0.0, 0.0, 0.0))
    record = Record(bytes(32), Pair("lion", "cat"), verdict, 0)
    (row,) = through_sqlite(row_of(record))
    assert row[-1] == checksum_of(record)
    with pytest.raises(CorruptRecord):
        record_of(record.key, row)


def test_numbers_no_row_may_have_are_refused() -> None:
    row = list(through_sqlite(row_of(STORED[3]))[0])
    for at, value in ((2, None), (4, 3), (4, b"splendid"), (5, -1.0), (5, b"x"), (6, None), (12, -1), (12, b"x")):
        with pytest.raises(CorruptRecord):
            record_of(STORED[3].key, [*row[:at], value, *row[at + 1 :]])
    assert record_of(STORED[3].key, row) == STORED[3]


async def test_a_person_can_ask_the_file_in_sql(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.db"
    store = FileStore(path)
    await store.open()
    await store.put(JUDGE, STORED[:12])
    await store.put(OTHER, STORED[12:])
    await store.aclose()
    by_model = ask(
        path,
        "SELECT json_extract(identity, '$.model'), category, count(*), avg(p_generic) FROM verdicts "
        "JOIN judges ON judge = fingerprint GROUP BY 1, 2 ORDER BY 1, 2 LIMIT 2",
    )
    assert by_model == [("org/judge", "abstain", 2, 0.3), ("org/judge", "generic", 2, 0.3)]
    asked = "SELECT ground_truth, category, margin, datetime(created_us / 1000000, 'unixepoch') FROM verdicts"
    assert ask(path, f"{asked} WHERE prediction = 'cat 9' AND typeof(ground_truth) = 'text'") == [
        ("löwe", "less specific", 9 / 7, "1970-01-01 00:00:09")
    ]
    assert ask(path, "SELECT count(*) FROM verdicts WHERE margin IS NULL AND p_wrong IS NULL") == [(7,)]


async def test_a_file_of_layout_1_is_rewritten_when_it_is_opened(old: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert ask(old, "PRAGMA user_version") == [(1,)]
    for turn in range(2):
        store = FileStore(old, create=False)
        with caplog.at_level(logging.WARNING):
            await store.open()
        assert await store.get([record.key for record in STORED]) == STORED
        assert await store.get([CUT.key]) == [None]
        assert dict(await store.judges()) == {JUDGE.fingerprint: JUDGE, OTHER.fingerprint: OTHER}
        assert store.corrupt == 0
        await store.aclose()
        assert len(caplog.messages) == 3, f"start, damaged entry, end, and nothing in turn {turn}"
    assert "its 20 entries are rewritten" in caplog.messages[0]
    assert "19 entries are rewritten after" in caplog.messages[2]
    assert "1 damaged ones dropped" in caplog.messages[2]
    assert ask(old, "SELECT count(*), (SELECT group_concat(name) FROM sqlite_schema) FROM verdicts") == [
        (19, "verdicts,judges")
    ]
    assert ask(old, "PRAGMA user_version") == [(2,)]
    assert ask(old, "PRAGMA freelist_count") == [(0,)]


async def test_a_verdict_of_layout_1_still_wins(old: Path) -> None:
    store = FileStore(old)
    await store.open()
    late = dataclasses.replace(STORED[0], verdict=STORED[1].verdict)
    assert await store.put(JUDGE, [late, CUT]) == [STORED[0], CUT]
    await store.aclose()


async def test_a_full_disk_leaves_the_file_of_layout_1_as_it_was(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = ask(old, "SELECT key, content FROM verdicts ORDER BY key")
    left = 5

    def no_room(record: Record) -> tuple[Any, ...]:
        nonlocal left
        left -= 1
        if not left:
            raise sqlite3.OperationalError("database or disk is full")
        return row_of(record)

    monkeypatch.setattr(sqlite_layout, "row_of", no_room)
    with pytest.raises(StoreError, match="make room on the disk"):
        await FileStore(old).open()
    assert ask(old, "PRAGMA user_version") == [(1,)]
    assert ask(old, "SELECT key, content FROM verdicts ORDER BY key") == before
    store = FileStore(old)
    await store.open()
    assert await store.get([record.key for record in STORED]) == STORED
    await store.aclose()


async def test_a_store_whose_making_breaks_off_is_made_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even for a moment is there a file without our mark: the next start would refuse it as somebody else's."""
    path = tmp_path / "verdicts.db"

    def broken(make: Callable[..., None]) -> Callable[..., None]:
        def create(connection: sqlite3.Connection) -> None:
            make(connection)
            assert path.stat().st_size == 0
            raise KeyboardInterrupt

        return create

    with monkeypatch.context() as patched:
        patched.setattr(sqlite_file, "create", broken(create))
        with pytest.raises(KeyboardInterrupt):
            sqlite_file.connect(path, 1.0)
    store = FileStore(path)
    await store.open()
    assert await store.put(JUDGE, STORED[:1]) == STORED[:1]
    await store.aclose()


def test_the_checksum_is_that_of_the_bytes_in_redis() -> None:
    assert row_of(STORED[0])[-1] == checksum_of(STORED[0]) == encode(STORED[0])[-8:]
