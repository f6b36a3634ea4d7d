"""Warm rows: pairs that are in a judge's memory, through the service and in process.

    python benchmarks/verifier/service_overhead.py --seconds 5

The service is a process of its own (`speciarl verifier serve`) on the loopback interface. Its judge is a model judge on
the stand-in of `judge_stub.py`, which is asked about every pair once before anything is measured: what remains is the
service. In process the same judge is called with the same batches. Prints the latency of a request (p50, p99), what
the service adds to it, pairs per second, and their ratio to those in process. Client, service and judge share the
machine.
"""

import argparse
import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from statistics import quantiles

import aiohttp
from judge_stub import running
from rich.console import Console
from rich.table import Table

from speciarl.verdict import Pair
from speciarl.verifier_server import Verifier, build, parse_config

STARTUP_S = 60.0
WARM_UP = 20
LIMITS = {"waiting_pairs": 100_000}
JUDGE = {"model": "stub", "prompt": "base", "probe": False}

Ask = Callable[[], Awaitable[None]]


@contextlib.contextmanager
def service(stub: str, folder: Path, checkout: Path | None = None, store: Path | None = None) -> Iterator[str]:
    """URL of a running service, of the code in another checkout if one is given; with an SQLite store if wished."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "speciarl", "verifier", "serve", "--log-level", "warning"]
    command += ["--config", str(folder / "service.json"), f"port={port}"]
    (folder / "service.json").write_text(
        json.dumps(
            {
                "store": store and {"path": str(store)},
                "limits": LIMITS,
                "judges": {"stub": {**JUDGE, "endpoints": [stub]}},
            }
        )
    )
    environment = os.environ | ({"PYTHONPATH": str(checkout)} if checkout else {})
    process = subprocess.Popen(command, cwd=folder, env=environment)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


async def await_ready(session: aiohttp.ClientSession, url: str) -> None:
    """Wait until the service answers."""
    expires = time.monotonic() + STARTUP_S
    while time.monotonic() < expires:
        with contextlib.suppress(aiohttp.ClientConnectionError):
            async with session.get(f"{url}/ready") as reply:
                if reply.status == 200:
                    return
        await asyncio.sleep(0.1)
    raise TimeoutError(f"{url} was not ready within {STARTUP_S:g} s")


async def latencies(ask: Ask, clients: int, seconds: float, warm_up: int = WARM_UP) -> tuple[list[float], float]:
    """Seconds of each request that `clients` made one after the other, and those all of it took."""
    for _ in range(warm_up):
        await ask()
    taken: list[float] = []
    begun = time.perf_counter()

    async def client() -> None:
        while time.perf_counter() - begun < seconds:
            asked = time.perf_counter()
            await ask()
            taken.append(time.perf_counter() - asked)

    await asyncio.gather(*(client() for _ in range(clients)))
    return taken, time.perf_counter() - begun


def over_http(session: aiohttp.ClientSession, url: str, pairs: list[Pair]) -> Ask:
    """Asks with one HTTP request."""
    items = [{"ground_truth": pair.ground_truth, "prediction": pair.prediction} for pair in pairs]
    body = json.dumps({"pairs": items}).encode()

    async def ask() -> None:
        async with session.post(f"{url}/v1/judge", data=body, headers={"Content-Type": "application/json"}) as reply:
            answer = await reply.json()
            if reply.status != 200 or answer["judged"] != len(pairs):
                raise RuntimeError(f"HTTP {reply.status}: {answer}")

    return ask


def in_process(verifier: Verifier, pairs: list[Pair]) -> Ask:
    """Asks with calls."""

    async def ask() -> None:
        await asyncio.gather(*map(verifier.verify, pairs))

    return ask


async def measure(url: str, stub: str, seconds: float) -> Table:
    """The table."""
    table = Table(title=f"warm rows; load average {os.getloadavg()[0]:.1f} before", title_justify="left")
    for column in (
        "clients",
        "pairs",
        "p50 ms",
        "p99 ms",
        "added p50",
        "added p99",
        "pairs/s",
        "in process pairs/s",
        "ratio",
    ):
        table.add_column(column, justify="right")
    verifier = build(parse_config({**JUDGE, "endpoints": [stub]}))
    await verifier.start()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await await_ready(session, url)
        for clients in (1, 8):
            for size in (1, 10, 256):
                pairs = [
                    Pair(f"golden retriever {number % 20}", f"some kind of dog {number}") for number in range(size)
                ]
                local, local_s = await latencies(in_process(verifier, pairs), clients, seconds)
                remote, remote_s = await latencies(over_http(session, url, pairs), clients, seconds)
                rates = len(local) * size / local_s, len(remote) * size / remote_s
                cuts, local_cuts = quantiles(remote, n=100), quantiles(local, n=100)
                table.add_row(
                    str(clients),
                    str(size),
                    f"{1000 * cuts[49]:.2f}",
                    f"{1000 * cuts[98]:.2f}",
                    *(f"{1000 * (cuts[at] - local_cuts[at]):.2f}" for at in (49, 98)),
                    f"{rates[1]:.0f}",
                    f"{rates[0]:.0f}",
                    f"{rates[1] / rates[0]:.3f}",
                )
    await verifier.aclose()
    return table


def main() -> None:
    """Start the service, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="for each measurement")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with running("none") as stub, service(stub, folder) as url:
            Console(width=130).print(asyncio.run(measure(url, stub, options.seconds)))


if __name__ == "__main__":
    main()
