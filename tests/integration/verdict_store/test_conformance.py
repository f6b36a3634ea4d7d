"""What every store promises, asked of each kind: an SQLite file and a real Redis server."""

import asyncio
import dataclasses
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from speciarl.category import Category
from speciarl.verdict import Pair, Source, Verdict
from speciarl.verifier_server.config import StoreConfig
from speciarl.verifier_server.store import JudgeIdentity, Record, VerdictStore, build_store
from speciarl.verifier_server.store.record import encode
from speciarl.verifier_server.store.sqlite_layout import COLUMNS

pytestmark = pytest.mark.anyio

RecordOf = Callable[..., Record]


class Place:
    """Where the store under test keeps its entries: opened as often as a test likes, and tampered with."""

    def __init__(self, kind: str, path: Path, server: Any) -> None:
        self.kind = kind
        self._path = path
        self._server = server

    async def open(self, **changes: Any) -> VerdictStore:
        """Another store in the same place, as another process would have it."""
        place = {"path": str(self._path)} if self.kind == "file" else {"url": self._server.url}
        store = build_store(StoreConfig.model_validate({"kind": self.kind} | place | changes))
        await store.open()
        return store

    def change(self, key: bytes, assignment: str) -> None:
        """Set columns of an entry in the file."""
        with sqlite3.connect(self._path) as connection:
            assert connection.execute(f"UPDATE verdicts SET {assignment} WHERE key = ?", (key,)).rowcount == 1
        connection.close()

    def overwrite(self, key: bytes, content: bytes) -> None:
        """Put bytes where Redis keeps a record."""
        self._server.client().set(b"speciarl:1:verdict:" + key, content)

    def forget_judges(self) -> None:
        """Damage every judge's description."""
        if self.kind == "file":
            with sqlite3.connect(self._path) as connection:
                connection.execute("UPDATE judges SET identity = x'00'")
            connection.close()
        else:
            client = self._server.client()
            for name in client.hkeys("speciarl:1:judges"):
                client.hset("speciarl:1:judges", name, b"\0")


@pytest.fixture(params=["file", "redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    server = request.getfixturevalue("redis_server") if request.param == "redis" else None
    return Place(request.param, tmp_path / "new" / "folder" / "verdicts.db", server)


@pytest.fixture
async def store(place: Place) -> AsyncIterator[VerdictStore]:
    store = await place.open()
    yield store
    await store.aclose()


@pytest.fixture
async def other(place: Place) -> AsyncIterator[VerdictStore]:
    store = await place.open()
    yield store
    await store.aclose()


async def everything(store: VerdictStore, chunk: int = 1000) -> dict[bytes, Record | None]:
    return {key: record async for entries in store.scan(chunk) for key, record in entries}


async def test_what_was_put_is_found_in_order_and_what_was_not_is_not(
    store: VerdictStore, judge: JudgeIdentity, record_of: RecordOf
) -> None:
    records = [record_of(f"cat {i}", Category(i % 6)) for i in range(20)]
    assert await store.put(judge, records) == records
    keys = [record.key for record in reversed(records)]
    assert await store.get([*keys, record_of("tiger").key]) == [*reversed(records), None]
    assert await store.get([]) == []
    assert await store.put(judge, []) == []


@pytest.mark.parametrize("text", ["", "a" * 5000, "löwe 獅子 🦁", "\0 null"])
async def test_every_text_and_absent_numbers_come_back(store: VerdictStore, judge: JudgeIdentity, text: str) -> None:
    record = Record.of(judge.fingerprint, Pair(text, text), Verdict(Category.GENERIC, None, Source.LIVE), 1e9)
    await store.put(judge, [record])
    assert await store.get([record.key]) == [record]


async def test_it_outlives_the_process(place: Place, judge: JudgeIdentity, record_of: RecordOf) -> None:
    store = await place.open()
    await store.put(judge, [record_of("cat")])
    await store.aclose()
    await store.aclose()
    again = await place.open()
    assert await again.get([record_of("cat").key]) == [record_of("cat")]
    assert dict(await again.judges()) == {judge.fingerprint: judge}
    await again.aclose()


async def test_the_first_writer_wins_for_everybody(
    store: VerdictStore, other: VerdictStore, judge: JudgeIdentity, record_of: RecordOf
) -> None:
    first, second = record_of("cat", Category.SPECIFIC, 1.0), record_of("cat", Category.WRONG, 2.0)
    assert await store.put(judge, [first]) == [first]
    assert await other.put(judge, [second, record_of("dog")]) == [first, record_of("dog")]
    assert await store.put(judge, [second]) == [first]
    assert await other.get([first.key]) == [first]


async def test_twice_in_one_batch_the_first_wins(
    store: VerdictStore, judge: JudgeIdentity, record_of: RecordOf
) -> None:
    first, second = record_of("cat", Category.SPECIFIC), record_of("cat", Category.WRONG)
    assert await store.put(judge, [first, second]) == [first, first]


async def test_racing_writers_agree(
    store: VerdictStore, other: VerdictStore, judge: JudgeIdentity, record_of: RecordOf
) -> None:
    async def write(to: VerdictStore, category: Category) -> list[Record]:
        batches = [[record_of(f"cat {i}", category) for i in range(start, start + 25)] for start in range(0, 500, 25)]
        return [record for batch in batches for record in await to.put(judge, batch)]

    one, two = await asyncio.gather(write(store, Category.GENERIC), write(other, Category.SPECIFIC))
    assert one == two
    assert len(one) == 500


CHANGES = [
    "judge = zeroblob(32)",
    "ground_truth = 'tiger'",
    "ground_truth = ''",
    "prediction = 'lion'",
    "prediction = prediction || ' '",
    "prediction = CAST(x'80ff80' AS TEXT)",
    "category = 'specific'",
    "category = 'splendid'",
    "category = 4",
    "margin = 1.25",
    "margin = 0",
    "margin = -1.5",
    "margin = NULL",
    "margin = 'much'",
    *(f"p_{category.name.lower()} = {value}" for category in Category for value in ("0.25", "9e999", "NULL")),
    f"{', '.join(f'p_{category.name.lower()} = NULL' for category in Category)}",
    "p_wrong = p_abstain, p_abstain = p_wrong",
    "created_us = created_us + 1",
    "created_us = -1",
    *(f"{column} = NULL" for column in ("judge", "ground_truth", "prediction", "category", "created_us", "checksum")),
    "created_us = 'today'",
    "checksum = zeroblob(8)",
    "checksum = x''",
    "category = 'specific', checksum = (SELECT checksum FROM verdicts WHERE prediction = 'dog')",
    "(judge, ground_truth, prediction, category, margin, created_us, checksum) = (SELECT judge, ground_truth, "
    "prediction, category, margin, created_us, checksum FROM verdicts WHERE prediction = 'dog')",
]
"""Each column by itself, then checksums and whole records of others."""


@pytest.mark.parametrize("place", ["file"], indirect=True)
@pytest.mark.parametrize("change", CHANGES)
async def test_an_entry_with_a_changed_column_is_none_and_is_rewritten(
    place: Place, store: VerdictStore, other: VerdictStore, judge: JudgeIdentity, record_of: RecordOf, change: str
) -> None:
    await store.put(judge, [record_of("cat"), record_of("dog")])
    place.change(record_of("cat").key, change)
    await assert_it_is_none_and_is_rewritten(store, other, judge, record_of)


@pytest.mark.parametrize("place", ["file"], indirect=True)
async def test_an_entry_under_another_key_is_none(
    place: Place, store: VerdictStore, judge: JudgeIdentity, record_of: RecordOf
) -> None:
    await store.put(judge, [record_of("cat")])
    place.change(record_of("cat").key, "key = zeroblob(32)")
    assert await store.get([bytes(32), record_of("cat").key]) == [None, None]
    assert await everything(store) == {bytes(32): None}


def test_every_column_is_changed_by_itself() -> None:
    alone = {change.partition(" ")[0] for change in CHANGES if "," not in change}
    assert {*COLUMNS.split(", ")} - alone == {"key"}


@pytest.mark.parametrize("place", ["redis"], indirect=True)
@pytest.mark.parametrize("content", [b"", b"junk", b"\1" * 150, "whole record of another key"])
async def test_a_damaged_or_foreign_entry_is_none_and_is_rewritten(
    place: Place, store: VerdictStore, other: VerdictStore, judge: JudgeIdentity, record_of: RecordOf, content: Any
) -> None:
    await store.put(judge, [record_of("cat"), record_of("dog")])
    place.overwrite(record_of("cat").key, content if isinstance(content, bytes) else encode(record_of("dog")))
    await assert_it_is_none_and_is_rewritten(store, other, judge, record_of)


async def assert_it_is_none_and_is_rewritten(
    store: VerdictStore, other: VerdictStore, judge: JudgeIdentity, record_of: RecordOf
) -> None:
    record = record_of("cat")
    assert await store.get([record.key, record_of("dog").key]) == [None, record_of("dog")]
    assert store.corrupt == 1
    assert (await everything(store))[record.key] is None
    again = record_of("cat", Category.SPECIFIC)
    assert await store.put(judge, [again]) == [again]
    assert await other.put(judge, [record]) == [again]
    assert await other.get([record.key]) == [again]


async def test_a_damaged_judge_is_described_anew(
    place: Place, store: VerdictStore, judge: JudgeIdentity, record_of: RecordOf
) -> None:
    await store.put(judge, [record_of("cat")])
    place.forget_judges()
    assert dict(await store.judges()) == {}
    later = await place.open()
    await later.put(judge, [record_of("dog")])
    assert dict(await later.judges()) == {judge.fingerprint: judge}
    await later.aclose()


async def test_judges_do_not_meet(store: VerdictStore, judge: JudgeIdentity, record_of: RecordOf) -> None:
    strict = dataclasses.replace(judge, prompt="another")
    mild, harsh = record_of("cat", Category.SPECIFIC), record_of("cat", Category.WRONG, by=strict)
    assert await store.put(judge, [mild]) == [mild]
    assert await store.put(strict, [harsh]) == [harsh]
    assert await store.get([mild.key, harsh.key]) == [mild, harsh]
    assert dict(await store.judges()) == {judge.fingerprint: judge, strict.fingerprint: strict}


async def test_scan_gives_everything_and_delete_takes_it_away(
    store: VerdictStore, judge: JudgeIdentity, record_of: RecordOf
) -> None:
    assert await everything(store) == {}
    records = {record.key: record for record in (record_of(f"cat {i}") for i in range(2500))}
    await store.put(judge, list(records.values()))
    assert await everything(store) == records
    assert await everything(store, chunk=7) == records
    gone = list(records)[::2]
    await store.delete([*gone, bytes(32)])
    await store.delete([])
    assert set(await everything(store)) == set(records) - set(gone)


async def test_a_closed_store_opens_again(place: Place, judge: JudgeIdentity, record_of: RecordOf) -> None:
    store = await place.open()
    await store.put(judge, [record_of("cat")])
    await store.aclose()
    await store.open()
    assert await store.get([record_of("cat").key]) == [record_of("cat")]
    await store.aclose()
