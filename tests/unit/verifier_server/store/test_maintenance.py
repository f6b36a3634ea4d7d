"""Statistics, pruning, and the way through a parquet file and back."""

import dataclasses
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciarl.category import Category
from speciarl.verdict import Pair, Source, Verdict
from speciarl.verifier_server.store import JudgeIdentity, Record, StoreError, parquet
from speciarl.verifier_server.store.maintenance import PruneRule, matching_judges, prune, statistics
from speciarl.verifier_server.store.sqlite_store import FileStore

pytestmark = pytest.mark.anyio

JUDGE = JudgeIdentity("vllm", "org/judge", "main", "prompt", ("wrong", "right"), "first_token", "{}")
OTHER = dataclasses.replace(JUDGE, model="org/other", revision=None)


def record_of(number: int, judge: JudgeIdentity = JUDGE, bare: bool = False) -> Record:
    """The number is also the second in which it was created."""
    verdict = Verdict(
        Category(number % 6),
        None if bare else number / 7,
        Source.LIVE,
        None if bare else (0.1, 0.2, 0.3, 0.1, 0.1, 0.2),
    )
    return Record.of(judge.fingerprint, Pair("löwe", f"cat {number}"), verdict, number)


MINE = [record_of(number) for number in range(60)]
THEIRS = [record_of(number, OTHER, bare=True) for number in range(40)]


async def opened(path: Path, mine: Sequence[Record] = (), theirs: Sequence[Record] = ()) -> FileStore:
    store = FileStore(path)
    await store.open()
    await store.put(JUDGE, mine)
    await store.put(OTHER, theirs)
    return store


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[FileStore]:
    store = await opened(tmp_path / "store" / "verdicts.db", MINE, THEIRS)
    yield store
    await store.aclose()


async def contents(store: FileStore) -> list[Record | None]:
    return [record async for entries in store.scan() for _, record in entries]


async def spoil(store: FileStore, record: Record) -> None:
    await store._run(
        lambda db: db.execute("UPDATE verdicts SET category = 'more specific' WHERE key = ?", (record.key,))
    )


async def test_statistics(store: FileStore) -> None:
    await spoil(store, MINE[0])
    passed: list[int] = []
    found = await statistics(store, passed.append)
    assert sum(passed) == 100
    assert (found.verdicts, found.corrupt) == (99, 1)
    mine, theirs = found.judges[JUDGE.fingerprint], found.judges[OTHER.fingerprint]
    assert (mine.verdicts, mine.oldest_us, mine.newest_us) == (59, 1_000_000, 59_000_000)
    assert mine.categories[Category.WRONG] == 9
    assert theirs.verdicts == 40


async def test_statistics_do_not_depend_on_the_order_of_the_entries(tmp_path: Path) -> None:
    """Redis scans in another order on every server."""
    third = dataclasses.replace(JUDGE, model="org/third")
    records = {
        JUDGE: [record_of(number) for number in range(2)],
        OTHER: [record_of(number, OTHER) for number in range(3)],
        third: [record_of(number, third) for number in range(2)],
    }
    listed = []
    for turn, order in enumerate((tuple(records), tuple(reversed(records)))):
        filled = await opened(tmp_path / f"{turn}.db")
        for judge in order:
            await filled.put(judge, records[judge])
        listed.append(list((await statistics(filled)).judges))
        await filled.aclose()
    equals = sorted((JUDGE.fingerprint, third.fingerprint))
    assert listed == [[OTHER.fingerprint, *equals]] * 2


@pytest.mark.parametrize(
    ("rule", "left", "corrupt_only"),
    [
        (PruneRule(), MINE + THEIRS, True),
        (PruneRule(before_us=30_000_000), MINE[30:] + THEIRS[30:], False),
        (PruneRule(judges=[OTHER.fingerprint]), MINE, False),
        (PruneRule(before_us=30_000_000, judges=[OTHER.fingerprint]), MINE + THEIRS[30:], False),
        (PruneRule(keep=10), MINE[50:], False),
        (PruneRule(judges=[JUDGE.fingerprint], keep=5), THEIRS[35:], False),
        (PruneRule(keep=0), [], False),
        (PruneRule(keep=1000), MINE + THEIRS, True),
    ],
)
async def test_prune(store: FileStore, rule: PruneRule, left: list[Record], corrupt_only: bool) -> None:
    damaged = record_of(1000)
    await store.put(JUDGE, [damaged])
    await spoil(store, damaged)
    dry = await prune(store, rule, dry=True)
    assert len(await contents(store)) == 101
    done = await prune(store, rule)
    assert done == dry
    assert (done.corrupt, done.left, done.deleted) == (1, len(left), 101 - len(left))
    assert {record.key for record in left} == {record.key for record in await contents(store) if record}
    assert corrupt_only == (done.deleted == 1)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), st.integers(0, 35))
async def test_keeping_the_newest_keeps_at_least_so_many_and_none_older(ages: list[int], keep: int) -> None:
    entries = [(bytes([i]) * 32, dataclasses.replace(record_of(i), created_us=age)) for i, age in enumerate(ages)]

    class FakeStore:
        def __init__(self) -> None:
            self.gone: set[bytes] = set()

        async def scan(self) -> AsyncIterator[Any]:
            yield entries

        async def delete(self, keys: Sequence[bytes]) -> None:
            self.gone.update(keys)

    store = FakeStore()
    await prune(store, PruneRule(keep=keep))  # type: ignore[arg-type]
    left = [record.created_us for key, record in entries if key not in store.gone]
    lost = [record.created_us for key, record in entries if key in store.gone]
    assert len(left) >= min(keep, len(ages))
    assert not lost or not left or max(lost) < min(left)
    assert len(left) - left.count(min(left, default=0)) < max(keep, 1)


def test_judges_are_found_by_model_or_fingerprint() -> None:
    known = [JUDGE, OTHER]
    assert matching_judges(known, "org/judge") == [JUDGE]
    assert matching_judges(known, OTHER.fingerprint.hex()[:8].upper()) == [OTHER]
    assert matching_judges(known, "org") == matching_judges(known, OTHER.fingerprint.hex()[:7]) == []


async def test_through_a_file_and_back(store: FileStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "ROWS", 30)  # several row groups and batches
    await spoil(store, MINE[0])
    file = tmp_path / "out.parquet"
    passed: list[int] = []
    done = await parquet.export(store, file, passed.append)
    assert (done.rows, done.corrupt, done.unknown, sum(passed)) == (99, 1, 0, 100)
    assert pq.read_metadata(file).num_row_groups > 1
    assert parquet.count_rows(file) == 99
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["out.parquet"]
    copy = await opened(tmp_path / "copy.db")
    imported = await parquet.load(copy, file)
    assert (imported.rows, imported.kept, imported.refused) == (99, 0, 0)
    assert await contents(copy) == [record for record in await contents(store) if record]
    assert await copy.judges() == await store.judges()
    assert (await parquet.load(copy, file)).rows == 99
    await copy.aclose()


async def test_what_a_reader_of_the_file_sees(store: FileStore, tmp_path: Path) -> None:
    await parquet.export(store, tmp_path / "out.parquet")
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    row = next(row for row in rows if row["key"] == MINE[8].key)
    assert (row["ground_truth"], row["prediction"], row["category"]) == ("löwe", "cat 8", "generic")
    assert (row["margin"], row["probabilities"]) == (8 / 7, [0.1, 0.2, 0.3, 0.1, 0.1, 0.2])
    assert row["created_at"].isoformat() == "1970-01-01T00:00:08+00:00"
    assert (row["judge"], row["judge_model"], row["judge_revision"]) == (JUDGE.fingerprint.hex(), "org/judge", "main")
    assert row["judge_labels"] == ["wrong", "right"]


async def test_entries_of_an_unknown_judge_are_left_out_and_counted(store: FileStore, tmp_path: Path) -> None:
    await store._run(lambda db: db.execute("DELETE FROM judges WHERE fingerprint = ?", (OTHER.fingerprint,)))
    done = await parquet.export(store, tmp_path / "out.parquet")
    assert (done.rows, done.unknown) == (60, 40)


async def test_the_first_writer_wins_over_an_import(store: FileStore, tmp_path: Path) -> None:
    await parquet.export(store, tmp_path / "out.parquet")
    mine = dataclasses.replace(MINE[0], verdict=MINE[1].verdict)
    elsewhere = await opened(tmp_path / "other.db", [mine])
    done = await parquet.load(elsewhere, tmp_path / "out.parquet")
    assert (done.rows, done.kept) == (99, 1)
    assert await elsewhere.get([mine.key]) == [mine]
    await elsewhere.aclose()


TAMPERED: list[tuple[str, Any]] = [
    ("category", "specific"),
    ("category", "splendid"),
    ("category", None),
    ("margin", 99.0),
    ("margin", float("nan")),
    ("probabilities", [1.0]),
    ("probabilities", None),
    ("ground_truth", "tiger"),
    ("ground_truth", None),
    ("created_at", 7),
    ("created_at", -7),
    ("created_at", None),
    ("key", bytes(32)),
    ("checksum", bytes(8)),
    ("judge_model", "org/better"),
    ("judge_revision", None),
    ("judge_labels", None),
    ("judge_normaliser", 9),
]


@pytest.mark.parametrize(("column", "value"), TAMPERED)
async def test_a_changed_row_is_refused_and_counted(store: FileStore, tmp_path: Path, column: str, value: Any) -> None:
    file = tmp_path / "out.parquet"
    await parquet.export(store, file)
    table = pq.read_table(file)
    rows = table.to_pylist()
    number = next(number for number, row in enumerate(rows) if row["key"] == MINE[8].key)
    rows[number][column] = value
    pq.write_table(pa.Table.from_pylist(rows, table.schema), file)
    copy = await opened(tmp_path / "copy.db")
    done = await parquet.load(copy, file)
    assert (done.rows, done.refused) == (99, 1)
    assert done.examples[0].startswith(f"{file}, row {number}: ")
    assert len(await contents(copy)) == 99
    assert await copy.get([MINE[8].key]) == [None]
    await copy.aclose()


async def test_a_file_that_is_no_export_is_refused(store: FileStore, tmp_path: Path) -> None:
    file = tmp_path / "in.parquet"
    with pytest.raises(StoreError, match="there is no file"):
        await parquet.load(store, file)
    file.write_bytes(b"PAR1 nonsense")
    assert parquet.count_rows(file) is None
    with pytest.raises(StoreError, match="no parquet file, or damaged"):
        await parquet.load(store, file)
    pq.write_table(pa.table({"key": [b"1"]}), file)
    with pytest.raises(StoreError, match="no export of a verdict store"):
        await parquet.load(store, file)
    pq.write_table(pa.table({"key": [b"1"]}).replace_schema_metadata({"format": parquet.FORMAT}), file)
    with pytest.raises(StoreError, match="no export of a verdict store"):
        await parquet.load(store, file)


async def test_an_export_that_breaks_off_leaves_the_old_file(store: FileStore, tmp_path: Path) -> None:
    file = tmp_path / "out.parquet"
    file.write_text("old")

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await parquet.export(store, file, stop)
    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["out.parquet"]
