"""The commands under `speciarl verifier store` on a real Redis server, at a TCP address and behind a password."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import redis
from click.testing import Result
from reserved_port import reserve_port
from typer.testing import CliRunner

from speciarl.category import Category
from speciarl.verifier_server.config import StoreConfig
from speciarl.verifier_server.store import JudgeIdentity, Record, build_store
from speciarl.verifier_server.store.cli import app

DAY_S = 86400.0
KEY = "redis-s3cret"
OTHER = JudgeIdentity("vllm", "org/other", "abc", "prompt", ("wrong", "right"), "first_token", "{}")


class Place:
    """A Redis store as the command line knows it."""

    def __init__(self, url: str, key_file: Path) -> None:
        self.url = url
        self.key_file = key_file

    def run(self, command: str, *arguments: object, prefix: str = "here") -> Result:
        words = [command, self.url, *arguments, "--password-file", self.key_file, "--prefix", prefix]
        return CliRunner().invoke(app, [str(word) for word in words])

    def put(self, judge: JudgeIdentity, *records: Record, prefix: str = "here") -> None:
        """As a verifier writes."""
        where = {"url": self.url, "password_file": str(self.key_file), "prefix": prefix}

        async def write() -> None:
            store = build_store(StoreConfig(kind="redis", timeout_s=30, **where))
            await store.open()
            await store.put(judge, records)
            await store.aclose()

        asyncio.run(write())

    def stats(self, prefix: str = "here") -> Any:
        shown = self.run("stats", "--json", prefix=prefix)
        assert shown.exit_code == 0, shown.output
        return json.loads(shown.stdout)


@pytest.fixture
def place(
    make_redis: Callable[..., Any], tmp_path: Path, judge: JudgeIdentity, record_of: Callable[..., Record]
) -> Iterator[Place]:
    """A server with a verdict of one judge for each of the last ten days, and three of another from today."""
    key_file = tmp_path / "redis.key"
    key_file.write_text(KEY + "\n")
    with reserve_port() as reserved:
        port = reserved.getsockname()[1]
        make_redis("--bind", "127.0.0.1", "--port", str(port), "--requirepass", KEY)
        found = Place(f"redis://127.0.0.1:{port}/0", key_file)
        now = time.time()
        found.put(judge, *(record_of(f"cat {day}", Category.GENERIC, now - day * DAY_S) for day in range(10)))
        found.put(OTHER, *(record_of(f"dog {number}", now_s=now, by=OTHER) for number in range(3)))
        yield found


def test_stats(place: Place, judge: JudgeIdentity) -> None:
    found = place.stats()
    assert (found["verdicts"], found["damaged"]) == (13, 0)
    by_judge = {one["fingerprint"]: one for one in found["judges"]}
    assert by_judge[judge.fingerprint.hex()]["categories"]["generic"] == 10
    assert by_judge[OTHER.fingerprint.hex()]["categories"]["wrong"] == 3
    assert by_judge[OTHER.fingerprint.hex()]["identity"]["model"] == "org/other"
    assert "13 verdicts" in place.run("stats").stdout
    assert place.stats(prefix="elsewhere")["verdicts"] == 0


def test_export_and_import_keep_every_verdict(place: Place, tmp_path: Path) -> None:
    out, again = tmp_path / "out.parquet", tmp_path / "again.parquet"
    assert place.run("export", out).stdout == f"{out}: 13 verdicts\n"
    for _ in range(2):  # the second time changes nothing
        assert place.run("import", out, prefix="elsewhere").stdout == f"{place.url}: 13 verdicts\n"
        assert place.stats(prefix="elsewhere") == place.stats()
    place.run("export", again, prefix="elsewhere")
    rows, same = ({json.dumps(row, default=str) for row in pq.read_table(file).to_pylist()} for file in (out, again))
    assert rows == same
    assert len(rows) == 13


def test_an_import_replaces_no_verdict(
    place: Place, tmp_path: Path, judge: JudgeIdentity, record_of: Callable[..., Record]
) -> None:
    out = tmp_path / "out.parquet"
    place.run("export", out)
    place.put(judge, record_of("cat 3", Category.WRONG), prefix="elsewhere")
    assert "12 verdicts (1 already there)" in place.run("import", out, prefix="elsewhere").stdout
    (mine,) = (one for one in place.stats(prefix="elsewhere")["judges"] if one["identity"]["model"] == "org/judge")
    assert (mine["categories"]["wrong"], mine["categories"]["generic"]) == (1, 9)


@pytest.mark.parametrize(
    ("options", "left"),
    [
        (["--older-than", "4.5"], 8),
        (["--keep", "5"], 5),
        (["--judge", "org/other"], 10),
        (["--judge", "org/judge", "--older-than", "8.5"], 12),
        (["--damaged"], 13),
    ],
)
def test_prune(place: Place, options: list[str], left: int) -> None:
    dry = place.run("prune", *options, "--dry-run")
    assert f"{13 - left} entries would be deleted, {left} left" in dry.stdout
    assert place.stats()["verdicts"] == 13
    done = place.run("prune", *options)
    assert done.exit_code == 0
    assert f"{13 - left} entries deleted, {left} left" in done.stdout
    assert place.stats()["verdicts"] == left


def test_a_damaged_entry_is_counted_left_out_and_pruned(place: Place, tmp_path: Path) -> None:
    client: Any = redis.Redis.from_url(place.url, password=KEY)
    key = next(client.scan_iter("here:*:verdict:*"))
    client.set(key, client.get(key)[:-3])
    assert (place.stats()["verdicts"], place.stats()["damaged"]) == (12, 1)
    assert "12 verdicts (1 left out damaged)" in place.run("export", tmp_path / "out.parquet").stdout
    assert "1 entries deleted, 12 left" in place.run("prune", "--damaged").stdout
    assert (place.stats()["verdicts"], place.stats()["damaged"]) == (12, 0)


def test_a_wrong_password_is_said_in_one_line_without_it(place: Place) -> None:
    place.key_file.write_text("wr0ng")
    refused = place.run("stats")
    assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)
    assert refused.stderr.startswith(f"speciarl: verdict store {place.url} cannot be used: ")
    assert "wr0ng" not in refused.stderr
    assert KEY not in refused.stderr
