"""The verifier with a store: verdicts outlive it, are pinned, never stale, and never depend on the store's health."""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from speciarl.category import Category
from speciarl.errors import VerifierStartError
from speciarl.utils.deadline import within
from speciarl.verdict import Judgement, Pair, Source, Unscorable, Verdict
from speciarl.verifier_server import parse_config
from speciarl.verifier_server.llm_verifier import LLMVerifier
from speciarl.verifier_server.store import Record, sqlite_store
from speciarl.verifier_server.store.sqlite_layout import INTO_VERDICTS, row_of

pytestmark = pytest.mark.anyio

MakeJudge = Callable[[], Any]
PAIR = Pair("lion", "cat")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "verdicts.db"


def verifier_of(url: str, path: Path, **changes: Any) -> LLMVerifier:
    defaults = {"model": "fake", "prompt": "compact", "probe": False, "endpoints": [url], "backoff_s": 0.01}
    return LLMVerifier(parse_config(defaults | {"store": {"path": str(path)}} | changes))


@contextlib.asynccontextmanager
async def started(url: str, path: Path, **changes: Any) -> AsyncIterator[LLMVerifier]:
    verifier = verifier_of(url, path, **changes)
    await verifier.start()
    try:
        yield verifier
    finally:
        await verifier.aclose()
        stats = verifier.stats()
        ends = ("shortcuts", "memory_hits", "deduplicated", "store_hits", "live", "unscorable", "abandoned")
        assert stats["requests"] == sum(stats[name] for name in ends)


def outcome(judgement: Judgement) -> tuple[Category, Source]:
    assert isinstance(judgement, Verdict)
    return judgement.category, judgement.source


async def test_a_verdict_outlives_the_verifier(fake_judge: MakeJudge, path: Path) -> None:
    async with fake_judge().running() as judge:
        judge.answers = {"cat": "generic"}
        async with started(judge.url, path) as verifier:
            judge.arm()
            first = await verifier.verify(PAIR)
            assert outcome(first) == (Category.GENERIC, Source.LIVE)
            assert judge.chats == 1
        async with started(judge.url, path) as verifier:
            judge.arm()
            same = [verifier.verify(pair) for pair in (PAIR, Pair("Lion!", " CAT"))]
            found = await asyncio.gather(*same)
            again = await verifier.verify(PAIR)
            assert judge.chats == 0
            assert [outcome(j)[1] for j in (*found, again)] == [Source.STORE, Source.MEMORY, Source.MEMORY]
            assert isinstance(first, Verdict)
            assert isinstance(found[0], Verdict)
            assert (found[0].margin, found[0].probabilities) == (first.margin, first.probabilities)
            stats = verifier.stats()
            assert (stats["store_hits"], stats["live"], stats["store_degraded"]) == (1, 0, 0)
            assert stats["store_seconds"] > 0


async def test_only_verdicts_of_the_judge_are_kept(fake_judge: MakeJudge, path: Path) -> None:
    async with fake_judge().running() as judge:
        async with started(judge.url, path, decoding="choice", retries=0) as verifier:
            assert outcome(await verifier.verify(Pair("dog", "dog"))) == (Category.SPECIFIC, Source.SHORTCUT)
            judge.answers = {"cat": "no label"}
            judge.features = judge.features - {"structured_outputs"}
            assert isinstance(await verifier.verify(PAIR), Unscorable)
        with sqlite3.connect(path) as connection:
            assert connection.execute("SELECT count(*) FROM verdicts").fetchone() == (0,)
        connection.close()


UPGRADES: list[dict[str, Any]] = [
    {"revision": "v2"},
    {"decoding": "choice"},
    {"request_fields": {"seed": 7}},
    {"prompt": "PATH"},
    {"model": "other", "served_model_name": "fake"},
]


@pytest.mark.parametrize("upgrade", UPGRADES)
async def test_an_upgrade_never_serves_an_old_verdict(
    fake_judge: MakeJudge, path: Path, tmp_path: Path, upgrade: dict[str, Any]
) -> None:
    prompt = tmp_path / "compact.yaml"
    prompt.write_text("version: 1\nsystem: Grade the prediction against the ground truth, strictly.\n")
    changes = {name: str(prompt) if value == "PATH" else value for name, value in upgrade.items()}
    async with fake_judge().running() as judge:
        for answer, now in (("generic", {}), ("less specific", changes)):
            judge.answers = {"cat": answer}
            async with started(judge.url, path, **now) as verifier:
                assert outcome(await verifier.verify(PAIR)) == (Category.from_label(answer), Source.LIVE)
        judge.answers = {}
        for answer, now in (("generic", {}), ("less specific", changes)):
            async with started(judge.url, path, **now) as verifier:
                assert outcome(await verifier.verify(PAIR)) == (Category.from_label(answer), Source.STORE)


async def test_a_judge_that_changes_its_mind_is_held_to_its_first_verdict(fake_judge: MakeJudge, path: Path) -> None:
    async with fake_judge().running() as judge:
        judge.answers = {"cat": "generic"}
        async with started(judge.url, path) as one, started(judge.url, path) as two:
            judge.arm()
            judge.gate.clear()
            slow = asyncio.create_task(two.verify(PAIR))
            while not judge.chats:  # both looked before either wrote
                await asyncio.sleep(0.01)
            assert one._read_through is not None
            quick = Verdict(Category.MORE_SPECIFIC, None, Source.LIVE)
            await one._read_through._write(PAIR, quick)
            judge.gate.set()
            assert outcome(await slow) == (Category.MORE_SPECIFIC, Source.LIVE)
            assert outcome(await two.verify(PAIR)) == (Category.MORE_SPECIFIC, Source.MEMORY)
            assert outcome(await one.verify(PAIR)) == (Category.MORE_SPECIFIC, Source.STORE)


@pytest.mark.parametrize(
    "damage",
    [
        "category = 'specific'",
        "category = x'0102'",
        "prediction = CAST(x'80ff80' AS TEXT)",
        "margin = 'text'",
        "checksum = 7",
    ],
)
async def test_a_damaged_entry_is_judged_anew(fake_judge: MakeJudge, path: Path, damage: str) -> None:
    async with fake_judge().running() as judge:
        async with started(judge.url, path) as verifier:
            await verifier.verify(PAIR)
        with sqlite3.connect(path) as connection:
            connection.execute(f"UPDATE verdicts SET {damage}")
        connection.close()
        async with started(judge.url, path) as verifier:
            assert outcome(await verifier.verify(PAIR)) == (Category.WRONG, Source.LIVE)
            assert verifier.stats()["store_corrupt"] >= 1
        async with started(judge.url, path) as verifier:
            assert outcome(await verifier.verify(PAIR)) == (Category.WRONG, Source.STORE)


async def test_a_forged_entry_of_another_pair_is_not_believed(fake_judge: MakeJudge, path: Path) -> None:
    async with fake_judge().running() as judge:
        async with started(judge.url, path) as verifier:
            await verifier.verify(PAIR)
            assert verifier._read_through is not None
            judge_of_both = verifier._read_through._judge
        verdict = Verdict(Category.SPECIFIC, None, Source.LIVE)
        better = Record.of(judge_of_both.fingerprint, Pair("lion", "lion king"), verdict, 0)
        with sqlite3.connect(path) as connection:
            connection.execute(f"REPLACE {INTO_VERDICTS}", (judge_of_both.key(PAIR), *row_of(better)[1:]))
            assert connection.execute("SELECT prediction FROM verdicts").fetchall() == [("lion king",)]
        connection.close()
        async with started(judge.url, path) as verifier:
            assert outcome(await verifier.verify(PAIR)) == (Category.WRONG, Source.LIVE)


async def test_a_full_disk_costs_no_verdict_and_is_seen(
    fake_judge: MakeJudge, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pages = 12
    monkeypatch.setattr("speciarl.verifier_server.store.resilient.RETRY_S", 0.05)

    def connect_small(*args: Any) -> sqlite3.Connection:
        connection = connect(*args)
        connection.execute(f"PRAGMA max_page_count={pages}")
        return connection

    connect = sqlite_store.connect
    monkeypatch.setattr(sqlite_store, "connect", connect_small)
    predictions = [Pair("lion", f"cat {i}") for i in range(300)]
    async with fake_judge().running() as judge, started(judge.url, path) as verifier:
        for start in range(0, 300, 50):
            judgements = await asyncio.gather(*map(verifier.verify, predictions[start : start + 50]))
            assert {outcome(judgement) for judgement in judgements} == {(Category.WRONG, Source.LIVE)}
        stats = verifier.stats()
        assert stats["store_degraded"] == 1
        assert stats["store_errors"] >= 1
        assert sum("database or disk is full" in message for message in caplog.messages) < 10
        pages = 10_000
        expires = time.monotonic() + 30
        while verifier.stats()["store_degraded"]:
            assert time.monotonic() < expires
            await asyncio.sleep(0.05)
        assert verifier.stats()["store_lost"] == 0
    async with fake_judge().running() as judge, started(judge.url, path) as verifier:
        judge.arm()
        await asyncio.gather(*map(verifier.verify, predictions))
        assert judge.chats == 0
        assert verifier.stats()["store_hits"] == 300


async def test_a_store_that_cannot_be_used_ends_the_start_with_one_line(fake_judge: MakeJudge, tmp_path: Path) -> None:
    foreign = tmp_path / "notes.txt"
    foreign.write_text("mine")
    async with fake_judge().running() as judge:
        with pytest.raises(VerifierStartError, match=r"judge 'judge': .*is no SQLite file") as error:
            await verifier_of(judge.url, foreign).start()
        assert "\n" not in str(error.value)
        redis = verifier_of(judge.url, foreign, store={"kind": "redis", "url": "redis://127.0.0.1:1/0"})
        with pytest.raises(VerifierStartError, match=r"redis://127\.0\.0\.1:1/0 cannot be used"):
            await redis.start()


async def test_closing_in_the_middle_is_clean_and_what_was_judged_is_kept(fake_judge: MakeJudge, path: Path) -> None:
    async with fake_judge().running() as judge:
        async with started(judge.url, path) as verifier:
            await verifier.verify(PAIR)
            judge.arm()
            judge.gate.clear()
            waiting = [asyncio.create_task(verifier.verify(Pair("lion", f"cat {i}"))) for i in range(20)]
            while judge.chats < 20:
                await asyncio.sleep(0.01)
            await within(30, verifier.aclose())
            assert all(isinstance(judgement, Unscorable) for judgement in await asyncio.gather(*waiting))
        judge.gate.set()
        async with started(judge.url, path) as verifier:
            assert outcome(await verifier.verify(PAIR)) == (Category.WRONG, Source.STORE)


async def test_a_verdict_is_written_although_the_last_caller_leaves_meanwhile(
    fake_judge: MakeJudge, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The judge has answered by then: what it said is in the hands of the batch writer."""
    writing, may_write = asyncio.Event(), asyncio.Event()
    put = sqlite_store.FileStore.put

    async def slow_put(*args: Any) -> Any:
        writing.set()
        await may_write.wait()
        return await put(*args)

    monkeypatch.setattr(sqlite_store.FileStore, "put", slow_put)
    async with fake_judge().running() as judge, started(judge.url, path, cache_size=0) as verifier:
        judge.arm()
        judge.answers = {"cat": "generic", "dog": "less specific"}
        first, second = (asyncio.create_task(verifier.verify(pair)) for pair in (PAIR, Pair("lion", "dog")))
        await within(30, writing.wait())
        while verifier.stats()["judge_seconds"] == 0 or judge.chats < 2 or verifier.endpoint_stats()[0].in_flight:
            await asyncio.sleep(0.01)
        # One is being written, the other may wait for the next batch.
        for caller in (first, second):
            caller.cancel()
        await asyncio.wait({first, second})
        assert (verifier.stats()["dropped"], verifier.stats()["in_flight"]) == (2, 0)
        may_write.set()
        found = [outcome(await within(30, verifier.verify(pair))) for pair in (PAIR, Pair("lion", "dog"))]
        assert found == [(Category.GENERIC, Source.STORE), (Category.LESS_SPECIFIC, Source.STORE)]
        assert judge.chats == 2
