"""The verify stage, killed at random points: the same bytes afterwards, and little is judged twice."""

import asyncio
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import verify_process
import yaml
from made_predictions import write_predictions

from speciarl.evaluation.config import parse
from speciarl.evaluation.matrix import asked

PAIRS = 120
AT_A_TIME = 4
KILLS = 5


def settings(out: Path, server: Any, folder: Path) -> dict[str, Any]:
    """Two models, judged four chats at a time; half of what they say is the same."""
    judge = {"model": "fake", "endpoints": [server.url], "exact_shortcut": False, "max_concurrency": AT_A_TIME}
    (folder / "judge.yaml").write_text(yaml.safe_dump(judge))
    plain = {
        "out": str(out),
        "models": {"one": {"path": "a"}, "two": {"path": "b"}},
        "datasets": {"made": {"file": "made.parquet"}},
        "judges": {"slow": {"use": str(folder / "judge.yaml")}},
    }
    for number, cell in enumerate(asked(parse(plain))):
        pairs = [(f"truth {one % 7}", f"answer {one}") for one in range(number * 40, number * 40 + 80)]
        write_predictions(cell.predictions(out), [*pairs, ("truth 0", None)])
    return plain


def seen(server: Any) -> list[str]:
    """Pairs of ours that reached the judge, as often as they did."""
    contents = (request["messages"][-1]["content"] for request in server.requests)
    return [content for content in contents if '"truth ' in content]


async def hold(*_: Any) -> None:
    """A fault: no reply, so that a test that is slow to kill still kills what is unfinished."""
    await asyncio.sleep(3600)


def tables(out: Path) -> dict[str, bytes]:
    return {str(file.relative_to(out)): file.read_bytes() for file in sorted(out.glob("verdicts/**/*.parquet"))}


def test_killed_at_five_random_points_it_goes_on_to_the_same_bytes(tmp_path: Path, server: Any) -> None:
    server.features = server.features - {"batch"}
    server.answers |= {f"answer {one}": ("generic", "specific", "wrong")[one % 3] for one in range(PAIRS)}
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["verify_process", "speciarl.evaluation.verify.stage"])

    def start(plain: dict[str, Any]) -> Any:
        process = processes.Process(target=verify_process.main, args=(plain,))
        process.start()
        return process

    undisturbed = start(settings(tmp_path / "whole", server, tmp_path))
    undisturbed.join(120)
    assert undisturbed.exitcode == 0
    assert len(seen(server)) == len(set(seen(server))) == PAIRS
    expected = tables(tmp_path / "whole")
    assert len(expected) == 2

    server.requests.clear()
    server.delay_s = 0.02
    plain = settings(tmp_path / "killed", server, tmp_path)
    chance = random.Random(16)
    for point in sorted(chance.sample(range(5, PAIRS - 5), KILLS)):
        server.plan = lambda _, point=point: hold if len(seen(server)) > point else None
        process = start(plain)
        deadline = time.monotonic() + 120
        while len(seen(server)) < point and process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.005)
        assert process.is_alive()
        os.kill(process.pid, signal.SIGKILL)
        process.join(30)
        assert process.exitcode == -signal.SIGKILL
    server.plan = lambda _: None
    last = start(plain)
    last.join(120)
    assert last.exitcode == 0
    assert tables(tmp_path / "killed") == expected
    assert len(set(seen(server))) == PAIRS
    assert len(seen(server)) <= PAIRS + KILLS * 2 * AT_A_TIME
