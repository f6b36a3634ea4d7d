"""Look-ups and writes of the verdict stores, by number of entries.

    python benchmarks/verifier/store.py                                          file store: 10k and 1M entries
    python benchmarks/verifier/store.py --sizes 10000 1000000 10000000           about 2.5 GB of disk and ten minutes
    python benchmarks/verifier/store.py --redis redis://localhost:6379/9         Redis; deletes what it wrote at the end

Entries are filled in the order of their keys, as an import does; what is measured meets random keys. Prints the
median microseconds per entry and, in parentheses, the ratio to the smallest store: near 1 means that size does not
matter.
"""

import argparse
import asyncio
import random
import statistics
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from speciarl.category import Category
from speciarl.verdict import Pair, Source, Verdict
from speciarl.verifier_server.store import JudgeIdentity, Record, VerdictStore
from speciarl.verifier_server.store.redis_store import RedisStore
from speciarl.verifier_server.store.sqlite_store import FileStore

JUDGE = JudgeIdentity("vllm", "org/judge", None, "prompt", ("wrong", "right"), "first_token", "{}")
VERDICT = Verdict(Category.GENERIC, 1.5, Source.LIVE, (0.1, 0.1, 0.5, 0.1, 0.1, 0.1))
BATCH = 1000
ROUNDS = 30
SINGLES = 1000
PROGRESS = Console(stderr=True)


def pair(number: int) -> Pair:
    """A pair of usual length; negative numbers are in no store."""
    return Pair(f"golden-winged warbler {number % 200}", f"a small songbird {number}")


def record(number: int) -> Record:
    """The record of a pair."""
    return Record.of(JUDGE.fingerprint, pair(number), VERDICT, 1e9)


async def fill(store: VerdictStore, size: int) -> float:
    """Put the pairs 0 to size - 1 in the order of their keys; seconds for the puts."""
    keys = np.empty(size, "S32")
    for number in track(range(size), f"{size} keys", transient=True, console=PROGRESS):
        keys[number] = JUDGE.key(pair(number))
    order = np.argsort(keys)
    begun = time.perf_counter()
    for start in track(range(0, size, 5 * BATCH), f"filling {size}", transient=True, console=PROGRESS):
        await store.put(JUDGE, [record(int(number)) for number in order[start : start + 5 * BATCH]])
    return time.perf_counter() - begun


async def timed(calls: Iterator[tuple[Callable[[], Awaitable[object]], int]]) -> float:
    """Median microseconds per entry over calls that each deal with so many entries."""
    took = []
    for call, entries in calls:
        begun = time.perf_counter()
        await call()
        took.append((time.perf_counter() - begun) / entries * 1e6)
    return statistics.median(took)


async def measure(store: VerdictStore, size: int, chance: random.Random) -> dict[str, float]:
    """Microseconds per entry of each operation. Keys and records are made beforehand."""

    def gets(rounds: int, batch: int, hit: bool) -> Iterator[tuple[Callable[[], Awaitable[object]], int]]:
        for _ in range(rounds):
            numbers = [chance.randrange(size) if hit else -1 - chance.randrange(2**40) for _ in range(batch)]
            keys = [JUDGE.key(pair(number)) for number in numbers]
            yield lambda keys=keys: store.get(keys), batch

    def puts(rounds: int, batch: int) -> Iterator[tuple[Callable[[], Awaitable[object]], int]]:
        for _ in range(rounds):
            records = [record(-1 - chance.randrange(2**40)) for _ in range(batch)]
            yield lambda records=records: store.put(JUDGE, records), batch

    return {
        "hits, batched": await timed(gets(ROUNDS, BATCH, True)),
        "misses, batched": await timed(gets(ROUNDS, BATCH, False)),
        "puts, batched": await timed(puts(ROUNDS, BATCH)),
        "hits, single": await timed(gets(SINGLES, 1, True)),
        "misses, single": await timed(gets(SINGLES, 1, False)),
        "puts, single": await timed(puts(SINGLES, 1)),
    }


async def run(make: Callable[[int], VerdictStore], sizes: list[int], title: str, console: Console) -> None:
    """Measure one kind of store at every size and print its table."""
    results: dict[int, dict[str, float]] = {}
    filled: dict[int, float] = {}
    for size in sizes:
        store = make(size)
        await store.open()
        filled[size] = size / await fill(store, size)
        results[size] = await measure(store, size, random.Random(size))
        if isinstance(store, RedisStore):
            async for entries in store.scan(BATCH):
                await store.delete([key for key, _ in entries])
        else:
            console.print(f"{size} entries take {Path(store.where).stat().st_size / 1e6:.0f} MB")
        await store.aclose()
    table = Table("entries", *results[sizes[0]], "filled/s", title=title)
    for size, values in results.items():
        cells = [f"{value:.1f} ({value / results[sizes[0]][name]:.2f})" for name, value in values.items()]
        table.add_row(f"{size:,}", *cells, f"{filled[size]:,.0f}")
    console.print(table)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--folder", type=Path, help="where the files go for the time being (default: a temporary one)")
    parser.add_argument("--redis", metavar="URL", help="measure this server instead of files")
    options = parser.parse_args()
    console = Console(width=150)
    sizes = sorted(options.sizes)
    if options.redis:
        name = f"benchmark-{uuid.uuid4().hex[:8]}"
        title = "Redis, us per entry (ratio to the smallest)"
        asyncio.run(run(lambda size: RedisStore(options.redis, f"{name}-{size}"), sizes, title, console))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        title = "file, us per entry (ratio to the smallest)"
        asyncio.run(run(lambda size: FileStore(Path(folder) / f"{size}.db"), sizes, title, console))


if __name__ == "__main__":
    main()
