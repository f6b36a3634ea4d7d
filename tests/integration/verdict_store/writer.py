"""A process that writes to a file store, for tests that kill it, race it or take its disk away.

    python writer.py kill PATH SEED ROUNDS   a child writes and is killed, again and again
    python writer.py race PATH CATEGORY      writes 400 keys in a random order, prints what the store then holds
    python writer.py full PATH               meets a full disk, and then one with room
    python writer.py old PATH COUNT          makes a file of layout 1 with so many entries
    python writer.py migrate PATH COUNT      rewrites a file of layout 1, and kills itself after so many entries

Prints JSON on the last line.
"""

import asyncio
import json
import os
import random
import resource
import signal
import sqlite3
import sys
import time

from speciarl.category import Category
from speciarl.verdict import Pair, Source, Verdict
from speciarl.verifier_server.stats import Stats
from speciarl.verifier_server.store import JudgeIdentity, Record, ResilientStore, sqlite_layout
from speciarl.verifier_server.store.record import encode
from speciarl.verifier_server.store.sqlite_file import APPLICATION_ID
from speciarl.verifier_server.store.sqlite_store import FileStore

JUDGE = JudgeIdentity("vllm", "org/judge", None, "prompt", ("wrong", "right"), "first_token", "{}")
BATCH = 40
LIMIT_BYTES = 300_000


def record_of(name: str, category: Category = Category.WRONG) -> Record:
    return Record.of(JUDGE.fingerprint, Pair("lion", name), Verdict(category, 1.0, Source.LIVE), 1.0)


def batch_of(number: int) -> list[Record]:
    return [record_of(f"{number} {i} " + "x" * 200) for i in range(BATCH)]


async def write_for_ever(path: str, first: int, acknowledge: int) -> None:
    store = FileStore(path)
    await store.open()
    number = first
    while True:
        await store.put(JUDGE, batch_of(number))
        os.write(acknowledge, number.to_bytes(4, "big"))
        number += 1


def kill_again_and_again(path: str, seed: int, rounds: int) -> dict[str, int]:
    """Children of a process without threads, so that each starts within milliseconds."""
    chance = random.Random(seed)
    acknowledged: list[int] = []
    for round_number in range(rounds):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            asyncio.run(write_for_ever(path, round_number * 10_000, writing))
        os.close(writing)
        os.read(reading, 0)
        time.sleep(chance.uniform(0.02, 0.25))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with os.fdopen(reading, "rb") as pipe:
            content = pipe.read()
        acknowledged += [int.from_bytes(content[at : at + 4], "big") for at in range(0, len(content), 4)]
    return {"acknowledged": len(acknowledged)} | asyncio.run(verify(path, acknowledged))


async def verify(path: str, acknowledged: list[int]) -> dict[str, int]:
    store = FileStore(path, create=False)
    await store.open()
    missing = 0
    for number in acknowledged:
        batch = batch_of(number)
        missing += sum(
            found != record for found, record in zip(await store.get([r.key for r in batch]), batch, strict=True)
        )
    kept = sum([len(entries) async for entries in store.scan()])
    sound = await store._run(lambda connection: connection.execute("PRAGMA integrity_check").fetchone()[0])
    await store.aclose()
    return {"missing": missing, "half_batches": kept % BATCH, "corrupt": store.corrupt, "sound": sound == b"ok"}


async def race(path: str, category: Category) -> list[str]:
    names = [f"cat {i}" for i in range(400)]
    random.Random(category).shuffle(names)
    store = FileStore(path)
    await store.open()
    held: dict[str, str] = {}
    for start in range(0, len(names), 5):
        batch = [record_of(name, category) for name in names[start : start + 5]]
        for kept in await store.put(JUDGE, batch):
            held[kept.pair.prediction] = kept.verdict.category.label
    await store.aclose()
    return [held[name] for name in sorted(names)]


async def meet_full_disk(path: str) -> dict[str, float]:
    """No file of this process may grow beyond a limit: the same error path as a disk without room."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT_BYTES, resource.RLIM_INFINITY))
    store, stats = FileStore(path), Stats()
    await store.open()
    outer = ResilientStore(store, JUDGE, 5.0, stats, retry_s=0.05)
    records = [record_of(f"cat {i} " + "x" * 200) for i in range(4000)]
    same = 0
    for start in range(0, len(records), 100):
        batch = records[start : start + 100]
        same += sum(
            [kept == record for kept, record in zip(await asyncio.gather(*map(outer.put, batch)), batch, strict=True)]
        )
    degraded, errors = stats.store_degraded, stats.store_errors
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    expires = time.monotonic() + 30
    while stats.store_degraded and time.monotonic() < expires:
        await asyncio.sleep(0.05)
    await outer.aclose()
    found = sum(record is not None for record in await store.get([record.key for record in records]))
    await store.aclose()
    return {
        "answered": same,
        "degraded": degraded,
        "errors": errors,
        "degraded_later": stats.store_degraded,
        "lost": stats.store_lost,
        "found": found,
    }


def make_old(path: str, count: int) -> None:
    """As releases with layout 1 did: a record was one blob."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
    connection.execute("PRAGMA user_version=1")
    for table, key in (("verdicts", "key"), ("judges", "fingerprint")):
        columns = f"{key} BLOB PRIMARY KEY NOT NULL, content BLOB NOT NULL"
        connection.execute(f"CREATE TABLE {table} ({columns}) WITHOUT ROWID")
    connection.execute("BEGIN")
    connection.execute("INSERT INTO judges VALUES (?, ?)", (JUDGE.fingerprint, JUDGE.to_json().encode()))
    rows = ((record.key, encode(record)) for record in map(record_of, map(str, range(count))))
    connection.executemany("INSERT INTO verdicts VALUES (?, ?)", rows)
    connection.execute("COMMIT")
    connection.close()


def die_while_migrating(path: str, after: int) -> None:
    row_of, left = sqlite_layout.row_of, iter(range(after))

    def last_row_of(record: Record) -> tuple[object, ...]:
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return row_of(record)

    sqlite_layout.row_of = last_row_of
    asyncio.run(FileStore(path).open())


def main() -> None:
    mode, path, *rest = sys.argv[1:]
    result: object
    if mode == "kill":
        result = kill_again_and_again(path, int(rest[0]), int(rest[1]))
    elif mode == "race":
        result = asyncio.run(race(path, Category[rest[0]]))
    elif mode == "full":
        result = asyncio.run(meet_full_disk(path))
    else:
        result = {"old": make_old, "migrate": die_while_migrating}[mode](path, int(rest[0]))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
