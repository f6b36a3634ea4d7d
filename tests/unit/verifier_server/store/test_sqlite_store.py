"""The file store when its file is missing, foreign, damaged, locked, full or gone."""

import asyncio
import logging
import shutil
import sqlite3
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from speciarl.category import Category
from speciarl.verdict import Pair, Source, Verdict
from speciarl.verifier_server.config import StoreConfig
from speciarl.verifier_server.store import JudgeIdentity, Record, StoreError, close_store, open_store, sqlite_store
from speciarl.verifier_server.store.sqlite_file import APPLICATION_ID, BlockingThread, connect
from speciarl.verifier_server.store.sqlite_store import FileStore

pytestmark = pytest.mark.anyio

JUDGE = JudgeIdentity("vllm", "org/judge", None, "prompt", ("wrong", "right"), "first_token", "{}")


def record_of(prediction: str, category: Category = Category.WRONG) -> Record:
    return Record.of(JUDGE.fingerprint, Pair("lion", prediction), Verdict(category, None, Source.LIVE), 1.0)


MANY = [record_of(f"cat {i}") for i in range(3000)]


class SmallDiskFileStore(FileStore):
    """A store whose file may take so many pages of 4 KiB: SQLite then reports a full disk."""

    pages = 40

    def _connect(self) -> sqlite3.Connection:
        connection = super()._connect()
        connection.execute(f"PRAGMA max_page_count={self.pages}")
        return connection


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "verdicts.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[FileStore]:
    store = FileStore(path, timeout_s=0.3)
    await store.open()
    yield store
    await store.aclose()


async def filled(path: Path) -> None:
    store = FileStore(path)
    await store.open()
    await store.put(JUDGE, MANY)
    await store.aclose()


async def test_a_store_that_must_exist_is_not_made(path: Path) -> None:
    with pytest.raises(StoreError, match="there is no verdict store at"):
        await FileStore(path, create=False).open()
    assert not path.exists()


@pytest.mark.parametrize("content", [b"PAR1 precious", b"x" * 5000])
async def test_a_file_of_something_else_is_refused_and_left_alone(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(StoreError, match="is no SQLite file, not a verdict store; choose another path"):
        await FileStore(path).open()
    assert path.read_bytes() == content


async def test_the_database_of_something_else_is_refused(path: Path) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as foreign:
        foreign.execute("CREATE TABLE mine (a)")
    foreign.close()
    with pytest.raises(StoreError, match="an SQLite file of something else"):
        await FileStore(path).open()


async def test_another_format_version_is_refused(path: Path) -> None:
    await filled(path)
    with sqlite3.connect(path) as newer:
        newer.execute("PRAGMA user_version=3")
    newer.close()
    with pytest.raises(StoreError, match="has format version 3, this SpeciaRL knows 2"):
        await FileStore(path).open()


def test_the_file_is_marked_as_ours(path: Path) -> None:
    connect(path, 1.0).close()
    assert path.read_bytes()[68:72] == APPLICATION_ID.to_bytes(4, "big")


@pytest.mark.parametrize("damage", ["zeroed start", "garbled start", "cut"])
async def test_a_damaged_file_is_moved_aside_at_the_start(
    path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    await filled(path)
    content = bytearray(path.read_bytes())
    if damage == "zeroed start":
        content[:4096] = bytes(4096)
    elif damage == "garbled start":
        content[:16] = b"\xff" * 16
        content[100:4096] = b"\xff" * 3996
    else:
        del content[4096:]
    path.write_bytes(content)
    store = FileStore(path)
    with caplog.at_level(logging.ERROR):
        await store.open()
        for _ in range(2):  # a cut file opens; the damage shows when it is read
            try:
                found = await store.get([MANY[0].key])
                break
            except StoreError:
                continue
    assert found == [None]
    assert await store.put(JUDGE, [MANY[0]]) == [MANY[0]]
    assert await store.get([MANY[0].key]) == [MANY[0]]
    await store.aclose()
    (aside,) = path.parent.glob("verdicts.db.damaged-*")
    assert aside.read_bytes() == content
    assert sum("is damaged" in message and str(aside) in message for message in caplog.messages) == 1


async def test_damage_deep_in_the_file_is_noticed_while_it_runs(path: Path) -> None:
    await filled(path)
    content = bytearray(path.read_bytes())
    content[5 * 4096 :] = b"\xff" * (len(content) - 5 * 4096)
    path.write_bytes(content)
    store = FileStore(path)
    await store.open()
    with pytest.raises(StoreError, match="malformed"):
        await store.get([record.key for record in MANY])
    assert await store.get([record.key for record in MANY]) == [None] * len(MANY)
    assert await store.put(JUDGE, MANY) == MANY
    assert await store.get([MANY[7].key]) == [MANY[7]]
    assert len(list(path.parent.glob("verdicts.db.damaged-*"))) == 1
    await store.aclose()


async def test_two_that_find_the_same_damage_end_up_in_the_same_new_file(path: Path) -> None:
    await filled(path)
    stores = [FileStore(path), FileStore(path)]
    for store in stores:
        await store.open()
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    with path.open("r+b") as file:
        file.write(content)
    for _ in range(2):  # at first one or both see the damage, then neither
        found = await asyncio.gather(*(store.put(JUDGE, MANY) for store in stores), return_exceptions=True)
        assert all(outcome == MANY or isinstance(outcome, StoreError) for outcome in found)
    assert found == [MANY, MANY]
    assert await stores[0].put(JUDGE, [record_of("dog")]) == [record_of("dog")]
    assert await stores[1].put(JUDGE, [record_of("dog", Category.SPECIFIC)]) == [record_of("dog")]
    assert len(list(path.parent.glob("verdicts.db.damaged-*[0-9]"))) == 1
    for store in stores:
        await store.aclose()


async def test_a_full_disk_fails_and_what_was_there_stays(path: Path) -> None:
    store = SmallDiskFileStore(path)
    await store.open()
    await store.put(JUDGE, MANY[:10])
    with pytest.raises(StoreError, match="database or disk is full; make room on the disk"):
        await store.put(JUDGE, MANY)
    assert await store.get([MANY[0].key, MANY[2999].key]) == [MANY[0], None]
    store.pages = 10_000
    with pytest.raises(StoreError, match="full"):
        await store.put(JUDGE, MANY)  # the connection that read is still the small one
    assert await store.put(JUDGE, MANY) == MANY
    await store.aclose()


async def test_a_lock_is_waited_for_and_not_for_ever(path: Path, store: FileStore) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    begun = time.monotonic()
    with pytest.raises(StoreError, match="locked"):
        await store.put(JUDGE, MANY[:1])
    assert 0.2 < time.monotonic() - begun < 30
    other.execute("ROLLBACK")
    other.close()
    assert await store.put(JUDGE, MANY[:1]) == MANY[:1]


async def test_a_file_that_was_removed_is_made_again(path: Path, store: FileStore) -> None:
    await store.put(JUDGE, MANY[:1])
    shutil.rmtree(path.parent)
    assert await store.put(JUDGE, MANY[1:2]) == MANY[1:2]
    later = FileStore(path, create=False)
    await later.open()
    assert await later.get([MANY[1].key]) == [MANY[1]]
    await later.aclose()


async def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "verdicts.db", tmp_path):
        with pytest.raises(StoreError, match="cannot be used") as error:
            await FileStore(place).open()
        assert "\n" not in str(error.value)
        assert str(place) in str(error.value)


async def test_deleting_gives_the_space_back(path: Path, store: FileStore) -> None:
    await store.put(JUDGE, MANY)
    await store.delete([record.key for record in MANY])
    await store.aclose()
    assert path.stat().st_size < 100_000


async def test_a_closed_store_says_so(store: FileStore) -> None:
    await store.aclose()
    with pytest.raises(StoreError, match="is not open"):
        await store.get([bytes(32)])


async def test_a_disk_that_hangs_is_not_waited_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hang = threading.Event()
    monkeypatch.setattr(sqlite_store, "connect", lambda *_: hang.wait())
    begun = time.monotonic()
    with pytest.raises(StoreError, match=r"did not open within 0\.1 s"):
        await open_store(StoreConfig(path=str(path)), within_s=0.1)
    assert time.monotonic() - begun < 30
    hang.set()


async def test_a_store_that_hangs_is_left_as_it_is_when_closing(store: FileStore) -> None:
    hang = threading.Event()
    stuck = asyncio.create_task(store._run(lambda _: hang.wait()))
    await asyncio.sleep(0.05)
    begun = time.monotonic()
    await close_store(store, within_s=0.1)
    assert time.monotonic() - begun < 30
    hang.set()
    assert await stuck


async def test_the_event_loop_goes_on_while_the_disk_hangs() -> None:
    thread = BlockingThread("test")
    hang = threading.Event()
    stuck = asyncio.create_task(thread.run(hang.wait))
    waiting = asyncio.create_task(thread.run(lambda: pytest.fail("cancelled before its turn")))
    await asyncio.sleep(0.05)
    waiting.cancel()
    hang.set()
    assert await stuck
    assert await thread.run(threading.get_ident) != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        await thread.run(lambda: 1 // 0)
    thread.stop()
