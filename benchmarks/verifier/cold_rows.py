"""Cold rows per second: our verifier against a plain client, on a stand-in for a vLLM judge.

    python benchmarks/verifier/cold_rows.py --rows 10000 --presets none 30b-a3b 8x8b 8b 70b

Plain client: what a careful user writes with the `openai` package. Repeated pairs are asked once; one AsyncOpenAI for
all, so connections are kept; a semaphore; the rubric first and the pair last, so that the prefix cache works; the
reply constrained to the labels; temperature 0. Both clients send the same messages, to the same stub
(`judge_stub.py`, in a process of its own), with the same concurrency, and are held to the stub's labels and counts.
"""

import argparse
import asyncio
import itertools
import json
import os
import time
import urllib.request
from dataclasses import dataclass
from typing import Any

from judge_stub import LABELS, PRESETS, running, true_label
from openai import AsyncOpenAI
from rich.console import Console
from rich.table import Table

from speciarl.verdict import Pair, Verdict
from speciarl.verifier_server import VerifierConfig, build
from speciarl.verifier_server.judge.prompt import Prompt, load_prompt

PROMPT = "base"


def rows(count: int) -> list[Pair]:
    """Distinct pairs, already in normal form."""
    return [Pair(f"golden retriever {index % 200}", f"some kind of dog {index}") for index in range(count)]


async def ask_plainly(url: str, pairs: list[Pair], concurrency: int) -> tuple[float, dict[Pair, str]]:
    """Seconds, and the label of each pair, with the `openai` package."""
    prompt: Prompt = load_prompt(PROMPT)
    places = asyncio.Semaphore(concurrency)
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none", timeout=60, max_retries=4) as client:

        async def ask(pair: Pair) -> str:
            messages: Any = prompt.messages(pair)
            async with places:
                reply = await client.chat.completions.create(
                    model="stub", messages=messages, temperature=0, max_tokens=8,
                    extra_body={"structured_outputs": {"choice": list(LABELS)}},
                )  # fmt: skip
            return reply.choices[0].message.content or ""

        await ask(Pair("warm", "up"))
        started = time.perf_counter()
        unique = list(dict.fromkeys(pairs))
        said = await asyncio.gather(*map(ask, unique))
        return time.perf_counter() - started, dict(zip(unique, said, strict=True))


async def ask_our_way(url: str, pairs: list[Pair], concurrency: int) -> tuple[float, dict[Pair, str]]:
    """The same with our verifier; start-up and its probe are not counted."""
    config = VerifierConfig(
        name="stub", model="stub", endpoints=(url,), prompt=PROMPT, probe=False, max_concurrency=concurrency
    )
    verifier = build(config)
    await verifier.start()
    try:
        await verifier.verify(Pair("warm", "up"))
        started = time.perf_counter()
        judgements = await asyncio.gather(*map(verifier.verify, pairs))
        took_s = time.perf_counter() - started
    finally:
        await verifier.aclose()
    verdicts = {pair: j.category.label for pair, j in zip(pairs, judgements, strict=True) if isinstance(j, Verdict)}
    return took_s, verdicts


def counts(url: str) -> dict[str, int]:
    """What the stub was asked since the last call."""
    with urllib.request.urlopen(f"{url}/counts") as reply:
        found: dict[str, int] = json.loads(reply.read())
        return found


@dataclass(frozen=True)
class Run:
    """One measurement."""

    seconds: float
    cpu_seconds: float
    """Processor time of the client, start-up included."""
    asked: dict[str, int]


def measure(ask: Any, url: str, pairs: list[Pair], concurrency: int) -> Run:
    """Raises AssertionError unless every pair got its label by a request of its own."""
    counts(url)
    cpu_before = time.process_time()
    took_s, said = asyncio.run(ask(url, pairs, concurrency))
    cpu_s = time.process_time() - cpu_before
    assert said == {pair: true_label(pair.ground_truth, pair.prediction) for pair in pairs}
    asked = counts(url)
    assert asked["pairs"] >= len(set(pairs))
    return Run(took_s, cpu_s, asked)


def main() -> None:
    """Measure both clients on each preset, in turn, and print the better time of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument(
        "--presets", nargs="+", choices=sorted(PRESETS), default=["none", "30b-a3b", "8x8b", "8b", "70b"]
    )
    options = parser.parse_args()
    table = Table("stub", "at once", "client", "rows/s", "ratio", "CPU ms/row", "requests", "tokens out")
    table.title = f"{options.rows} cold rows; load average {os.getloadavg()[0]:.1f} before"
    pairs = rows(options.rows)
    for preset, concurrency in itertools.product(options.presets, options.concurrency):
        best: dict[str, Run] = {}
        for name, ask in (("plain", ask_plainly), ("ours", ask_our_way)) * options.repeat:
            with running(preset) as url:
                run = measure(ask, url, pairs, concurrency)
            best[name] = min(run, best.get(name, run), key=lambda one: one.seconds)
        for name, run in best.items():
            rate, ratio = f"{len(pairs) / run.seconds:.0f}", f"{best['plain'].seconds / run.seconds:.2f}"
            cpu = f"{1000 * run.cpu_seconds / len(pairs):.2f}"
            requests, tokens = str(run.asked["chats"]), str(run.asked["output_tokens"])
            table.add_row(preset, str(concurrency), name, rate, ratio, cpu, requests, tokens)
    Console().print(table)


if __name__ == "__main__":
    main()
