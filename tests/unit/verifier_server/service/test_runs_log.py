"""The verdict log: whole files or none, nothing dropped, and every row once for who pages through it."""

import asyncio
import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speciarl.category import LABELS
from speciarl.errors import ConfigError
from speciarl.verdict import Reason, Source
from speciarl.verifier_server.service.config import LogConfig
from speciarl.verifier_server.service.errors import ApiError
from speciarl.verifier_server.service.runs import log as log_module
from speciarl.verifier_server.service.runs.log import VerdictLog
from speciarl.verifier_server.service.runs.registry import RunRegistry
from speciarl.verifier_server.service.runs.rows import SCHEMA, Counts, PartName, Row, read_part, write_part

Make = Callable[..., Any]
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def row(number: int, **changes: Any) -> Row:
    values = {"time": NOON + timedelta(seconds=number), "judge": "gold", "ground_truth": "dog"}
    return dict.fromkeys(SCHEMA.names) | values | {"prediction": str(number), "category": "wrong"} | changes


@contextlib.contextmanager
def open_log(directory: Path, **changes: Any) -> Iterator[tuple[VerdictLog, RunRegistry]]:
    log = VerdictLog(LogConfig(directory=str(directory), **{"flush_s": 60.0, "rows_per_part": 4} | changes))
    registry = RunRegistry(log, most_runs=5)
    registry.start()
    try:
        yield log, registry
    finally:
        log.close(10)


def wait_for(condition: Callable[[], bool]) -> None:
    expires = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < expires
        time.sleep(0.005)


def all_rows(registry: RunRegistry, run: str, limit: int) -> list[str]:
    """Predictions of all rows, read page by page."""
    said: list[str] = []
    after: str | None = None
    while True:
        page = asyncio.run(registry.rows(run, after, limit))
        assert len(page["rows"]) <= limit
        said += [one["prediction"] for one in page["rows"]]
        after = page["next"]
        if not page["more"]:
            return said


def test_full_parts_are_written_and_the_rest_waits(tmp_path: Path) -> None:
    with open_log(tmp_path) as (log, registry):
        registry.record("run", [row(number) for number in range(10)])
        wait_for(lambda: log.parts_written == 2)
        assert (log.rows_written, log.rows_waiting) == (8, 2)
        assert len(list((tmp_path / "run").iterdir())) == 2
        assert all_rows(registry, "run", 3) == [str(number) for number in range(10)]
    files = sorted((tmp_path / "run").glob("part-*.parquet"))
    assert [file.name[:11] for file in files] == ["part-000001", "part-000002", "part-000003"]
    table = pq.read_table(tmp_path / "run")
    assert table.num_rows == 10
    assert table.schema.remove_metadata().equals(SCHEMA)


def test_rows_that_are_old_enough_are_written(tmp_path: Path) -> None:
    with open_log(tmp_path, flush_s=0.05) as (log, registry):
        registry.record("run", [row(1)])
        wait_for(lambda: log.rows_written == 1)


def test_a_cursor_outlives_the_writing_of_its_rows(tmp_path: Path) -> None:
    with open_log(tmp_path) as (log, registry):
        registry.record("run", [row(0), row(1)])
        page = asyncio.run(registry.rows("run", None, 1))
        registry.record("run", [row(2), row(3), row(4)])
        wait_for(lambda: log.parts_written == 1)
        rest = asyncio.run(registry.rows("run", page["next"], 100))
        assert [one["prediction"] for one in rest["rows"]] == ["1", "2", "3", "4"]
        end = asyncio.run(registry.rows("run", rest["next"], 100))
        assert (end["rows"], end["next"], end["more"]) == ([], rest["next"], False)


def test_a_restart_goes_on_with_numbers_rows_and_statistics(tmp_path: Path) -> None:
    with open_log(tmp_path) as (_, registry):
        registry.record("run", [row(0), row(1, category=None, reason="timeout")])
        before = registry.info("run")
    (tmp_path / "run" / ".part-000002-00000000.parquet.tmp").write_bytes(b"half of it")
    (tmp_path / "lost+found").mkdir()
    with open_log(tmp_path) as (_, registry):
        assert registry.names() == ["run"]
        assert registry.info("run") == before
        registry.record("run", [row(2)])
        assert all_rows(registry, "run", 1) == ["0", "1", "2"]
        assert registry.info("run").pairs == 3
    names = sorted(file.name for file in (tmp_path / "run").iterdir())
    assert [name[:11] for name in names] == ["part-000001", "part-000002"]


def test_rows_in_the_place_of_lost_ones_are_new(tmp_path: Path) -> None:
    with open_log(tmp_path / "a") as (_, registry):
        registry.record("run", [row(0)])
        lost = asyncio.run(registry.rows("run", None, 10))["next"]
    # A killed service takes its waiting rows along; the next one uses their number again.
    with open_log(tmp_path / "b") as (_, registry):
        registry.record("run", [row(7)])
        page = asyncio.run(registry.rows("run", lost, 10))
        assert [one["prediction"] for one in page["rows"]] == ["7"]


def test_one_service_writes_to_a_directory(tmp_path: Path) -> None:
    with open_log(tmp_path), pytest.raises(ConfigError, match=r"another service writes to .*"):
        VerdictLog(LogConfig(directory=str(tmp_path))).start()
    with open_log(tmp_path):
        """The first let go of it."""


@pytest.mark.parametrize("content", [b"", b"PAR1 no"])
def test_an_alien_file_is_named_and_not_guessed_at(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "part-000001-0123abcd.parquet").write_bytes(content)
    with pytest.raises(ConfigError, match=r"part-000001-0123abcd\.parquet is no part of a verdict log"):
        VerdictLog(LogConfig(directory=str(tmp_path))).start()


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"verdict_log\.directory: .* cannot be used"):
        VerdictLog(LogConfig(directory=str(tmp_path / "file"))).start()


def test_a_failing_disk_loses_nothing_and_a_full_buffer_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = threading.Event()
    failing.set()

    def write(directory: Path, name: PartName, rows: list[Row]) -> None:
        if failing.is_set():
            raise OSError(28, "No space left on device")
        write_part(directory, name, rows)

    monkeypatch.setattr(log_module, "write_part", write)
    monkeypatch.setattr(log_module, "RETRY_S", 0.02)
    with open_log(tmp_path, buffer_rows=6) as (log, registry):
        registry.record("run", [row(number) for number in range(5)])
        wait_for(lambda: log.write_errors >= 2)
        with pytest.raises(ApiError, match="takes no rows") as caught:
            registry.record("run", [row(5), row(6)])
        assert (caught.value.status, caught.value.code, log.refused) == (503, "log_full", 1)
        assert registry.info("run").pairs == 5
        assert all_rows(registry, "run", 2) == list("01234")
        failing.clear()
        wait_for(lambda: log.rows_written == 4)
        registry.record("run", [row(5), row(6)])
    assert pq.read_table(tmp_path / "run")["prediction"].to_pylist() == list("0123456")


def test_a_disk_that_never_works_ends_in_a_count_of_what_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(log_module, "write_part", write)
    with open_log(tmp_path) as (log, registry):
        registry.record("run", [row(0)])
        assert log.close(5) == 1
        assert log.append("run", [row(1)]) is False


def test_a_part_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: Any) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", stopped)
    with pytest.raises(OSError, match="Input/output"):
        write_part(tmp_path, PartName(1, "0123abcd"), [row(1)])
    assert list(tmp_path.iterdir()) == []


def test_runs_are_limited_and_unknown_ones_refused(tmp_path: Path) -> None:
    with open_log(tmp_path) as (_, registry):
        for number in range(5):
            registry.record(f"run{number}", [row(0)])
        registry.admit("run0")
        registry.admit(None)
        with pytest.raises(ApiError, match="runs=5"):
            registry.admit("one-more")
        with pytest.raises(ApiError, match="no such run"):
            registry.info("one-more")
        for cursor in ("", "x", "1-0123abcd", "-1-0123abcd:0", "1-0123abcd:٣"):
            with pytest.raises(ApiError, match="`next` of an earlier page"):
                asyncio.run(registry.rows("run0", cursor, 1))


def test_without_a_log_runs_are_counted_only() -> None:
    registry = RunRegistry(None, most_runs=2)
    registry.start()
    registry.record("run", [row(0)])
    assert (registry.info("run").pairs, registry.info("run").logged) == (1, False)
    with pytest.raises(ApiError, match="keeps no rows"):
        asyncio.run(registry.rows("run", None, 1))


texts = st.text(max_size=20).map(lambda text: "".join(filter(str.isprintable, text)))
rows_strategy = st.lists(
    st.builds(
        lambda number, texts, verdict, probabilities, extra: row(
            number,
            ground_truth=texts[0],
            prediction=texts[1],
            extra_info=extra,
            probabilities=probabilities,
            **verdict,
        ),
        st.integers(0, 10**6),
        st.tuples(texts, texts),
        st.one_of(
            st.builds(
                lambda label, s: {"category": label, "source": s.value},
                st.sampled_from(LABELS),
                st.sampled_from(Source),
            ),
            st.builds(lambda reason: {"category": None, "reason": reason.value}, st.sampled_from(Reason)),
        ),
        st.one_of(st.none(), st.lists(st.floats(0, 1), min_size=6, max_size=6)),
        st.one_of(st.none(), texts),
    ),
    max_size=12,
)


@settings(max_examples=15)
@given(st.lists(rows_strategy, max_size=5), st.integers(1, 7), st.integers(1, 30))
def test_what_goes_in_comes_out(batches: list[list[Row]], rows_per_part: int, limit: int) -> None:
    expected = [one for batch in batches for one in batch]
    with tempfile.TemporaryDirectory() as folder:
        with open_log(Path(folder), rows_per_part=rows_per_part) as (_, registry):
            for batch in batches:
                registry.record("run", batch)
            if batches:
                assert all_rows(registry, "run", limit) == [one["prediction"] for one in expected]
        counts = Counts()
        counts.add_rows(expected)
        with open_log(Path(folder)) as (log, registry):
            finished, _ = log.parts("run")
            found = [one for name in finished for one in read_part(Path(folder) / "run", name)]
            assert found == expected
            if expected:
                assert registry._runs["run"] == counts
                assert Counts.from_json(counts.as_json()) == counts


@pytest.mark.anyio
async def test_runs_over_http(make_settings: Make, running: Make, tmp_path: Path) -> None:
    body = {"run": "night", "pairs": [{"ground_truth": "dog", "prediction": "samoyed", "id": "a"}]}
    body["pairs"].append({"ground_truth": "cat", "prediction": "dog"})
    async with running(make_settings(verdict_log={"directory": str(tmp_path / "log")})) as client:
        assert (await client.get("/v1/runs")).json() == {"runs": []}
        await client.post("/v1/judge", json=body)
        old = {"ground_truths": ["dog"], "predictions": ["dog"], "run_name": "exp/1", "extra_info": [{"image": 7}]}
        await client.post("/api/v1/classify/standard", json=old)
        assert [run["run"] for run in (await client.get("/v1/runs")).json()["runs"]] == ["exp-1", "night"]
        info = (await client.get("/v1/runs/night")).json()
        assert (info["pairs"], info["judges"], info["unscorable"]) == (2, {"gold": 2}, {"unknown_concept": 1})
        assert info["categories"] == dict.fromkeys(LABELS, 0) | {"more specific": 1}
        assert info["category_rates"]["more specific"] == 1
        page = (await client.get("/v1/runs/night/results", params={"limit": 1})).json()
        assert (page["rows"][0]["category"], page["rows"][0]["pair_id"], page["more"]) == ("more specific", "a", True)
        rest = (await client.get("/v1/runs/night/results", params={"after": page["next"]})).json()
        assert [(one["category"], one["reason"]) for one in rest["rows"]] == [(None, "unknown_concept")]
        assert (await client.get("/v1/runs/exp-1/results")).json()["rows"][0]["extra_info"] == '{"image":7}'
        for route in ("/v1/runs/nope", "/v1/runs/nope/results", "/v1/runs/..%2Fnight"):
            assert (await client.get(route)).status_code == 404
        assert (await client.get("/v1/runs/night/results", params={"after": "x"})).status_code == 422
        assert (await client.get("/v1/runs/night/results", params={"limit": 0})).status_code == 422
    assert sorted(path.name for path in (tmp_path / "log").iterdir()) == [".lock", "exp-1", "night"]
    assert pq.read_table(tmp_path / "log" / "night").num_rows == 2
