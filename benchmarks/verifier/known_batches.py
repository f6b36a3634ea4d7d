"""Batches of a training step whose pairs are all known, through the service of this code and of another checkout.

    git worktree add /tmp/before HEAD~1
    python benchmarks/verifier/known_batches.py --against /tmp/before

A batch has 2,560 rows, 768 of them distinct, as 256 images with ten rollouts each give. Both services run side by side
on the loopback interface, each with a model judge on the stand-in of `judge_stub.py` that was asked about every pair
before; requests go to one and the other in turn, so that the machine's moods meet both. Prints rows per second of each
and their ratio, for both APIs, with one client and with eight; and, to see that they did not become slower, for pairs
that nobody knows.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from statistics import median

import aiohttp
from judge_stub import running
from rich.console import Console
from rich.table import Table
from service_overhead import await_ready, latencies, service

IMAGES, ROLLOUTS, DISTINCT = 256, 10, 3
ROUNDS = 5
FEW = 100
"""Rows of a batch of new pairs, whose judge takes its time."""
TYPED = "/v1/judge"


def batch(mark: str = "") -> list[tuple[str, str]]:
    """Truth and prediction of each row; an image's rollouts give `DISTINCT` different answers, which bear the mark."""
    return [
        (f"golden retriever {image}", f"some kind of dog {image} {rollout % DISTINCT}{mark}")
        for image in range(IMAGES)
        for rollout in range(ROLLOUTS)
    ]


def bodies(rows: list[tuple[str, str]]) -> dict[str, bytes]:
    """The body of a request by route."""
    items = [{"ground_truth": truth, "prediction": prediction} for truth, prediction in rows]
    truths, predictions = ([row[column] for row in rows] for column in (0, 1))
    return {
        TYPED: json.dumps({"pairs": items}).encode(),
        "/api/v1/classify/standard": json.dumps({"ground_truths": truths, "predictions": predictions}).encode(),
    }


def new_bodies() -> Iterator[bytes]:
    """Bodies of pairs that no service has seen."""
    return (bodies(batch(f" {number}")[:FEW])[TYPED] for number in itertools.count())


def asking(session: aiohttp.ClientSession, url: str, bodies: Iterator[bytes]) -> Callable[[], Awaitable[None]]:
    """One request, its reply read to the end and not parsed: the client is not what is measured."""

    async def ask() -> None:
        async with session.post(url, data=next(bodies), headers={"Content-Type": "application/json"}) as reply:
            answer = await reply.read()
            if reply.status != 200:
                raise RuntimeError(f"HTTP {reply.status}: {answer[:300]!r}")

    return ask


async def measure(urls: dict[str, str], seconds: float) -> Table:
    """The table."""
    rows = batch()
    table = Table(title=f"rows per second; load average {os.getloadavg()[0]:.1f} before", title_justify="left")
    for column in ("route", "pairs", "clients", *urls, "ratio"):
        table.add_column(column, justify="right")
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        for url in urls.values():
            await await_ready(session, url)
        known = {(route, "known"): itertools.repeat(body) for route, body in bodies(rows).items()}
        for (route, which), sent in (known | {(TYPED, "new"): new_bodies()}).items():
            for clients in (1, 8):
                rates: dict[str, list[float]] = {name: [] for name in urls}
                for _ in range(ROUNDS):
                    for name, url in urls.items():
                        ask = asking(session, url + route, sent)
                        taken, in_all = await latencies(ask, clients, seconds / ROUNDS, warm_up=1)
                        rates[name].append(len(taken) * (len(rows) if which == "known" else FEW) / in_all)
                before, after = (median(rates[name]) for name in urls)
                table.add_row(route, which, str(clients), f"{before:.0f}", f"{after:.0f}", f"{after / before:.2f}")
    return table


def main() -> None:
    """Start both services, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, required=True, metavar="CHECKOUT", help="the code to compare with")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each measurement of one service")
    options = parser.parse_args()
    here = Path(__file__).resolve().parents[2]
    with contextlib.ExitStack() as stack:
        stub = stack.enter_context(running("none"))
        urls = {}
        for name, checkout in (("before", options.against.resolve()), ("after", here)):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            urls[name] = stack.enter_context(service(stub, folder, checkout))
        Console(width=120).print(asyncio.run(measure(urls, options.seconds)))


if __name__ == "__main__":
    main()
