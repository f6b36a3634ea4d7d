"""Ways of asking a real vLLM server, with the laptop judge: plain client, constrained labels, first tokens, and first
tokens of several pairs in one HTTP request; with prefix caching and without, with a short prompt and a long rubric.

    python benchmarks/verifier/judge_decoding.py --pairs 600 --concurrency 64

Prints verdicts per second of each, the better of two rounds in turn, the ratio to the plain client (`openai` package,
one chat constrained to the labels per pair, same messages, same concurrency), processor milliseconds per verdict of
client and servers, and how many verdicts agree with the plain client's. Every pair is asked once, no memory, no store.
"""

import argparse
import asyncio
import itertools
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from openai import AsyncOpenAI
from rich.console import Console
from rich.table import Table

import speciarl
from speciarl.cpu import environment
from speciarl.verdict import Pair, Verdict
from speciarl.verifier_server import PoolConfig, VerifierConfig, build
from speciarl.verifier_server.judge.prompt import load_prompt
from speciarl.verifier_server.pool.vllm_server import Replica, vllm_command

JUDGE = Path(speciarl.__file__).parent / "laptop" / "models" / "judge"
STARTUP_S = 180.0
ROUNDS = 2
WORDS = ("dog face", "cat face", "animal mammal", "animals nature", "none", "red apple", "food fruit", "food drink")

Ask = Callable[[VerifierConfig, list[Pair]], Awaitable[tuple[float, list[str]]]]
"""Seconds for the pairs, and the label of each; start-up is not counted."""


def pairs(count: int, turn: int) -> list[Pair]:
    """Distinct pairs of known words, told apart by a number; other ones for each turn, so that no prefix of the pair
    itself is cached."""
    words = list(itertools.product(WORDS, WORDS))
    numbered = (divmod(number, len(words)) for number in range(turn * count, (turn + 1) * count))
    return [Pair(words[index][0], f"{words[index][1]} {number}") for number, index in numbered]


async def ask_plainly(config: VerifierConfig, batch: list[Pair]) -> tuple[float, list[str]]:
    """With the `openai` package, as in `cold_rows.py`."""
    prompt = load_prompt(config.prompt)
    choice = {"structured_outputs": {"choice": list(prompt.scheme.labels)}}
    places = asyncio.Semaphore(config.max_concurrency)
    async with AsyncOpenAI(base_url=config.endpoints[0], api_key="none", timeout=300, max_retries=4) as client:

        async def ask(pair: Pair) -> str:
            messages: Any = prompt.messages(pair)
            async with places:
                reply = await client.chat.completions.create(
                    model=config.served_name, messages=messages, temperature=0, max_tokens=8, extra_body=choice
                )
            return reply.choices[0].message.content or ""

        await ask(Pair("warm", "up"))
        started = time.perf_counter()
        said = await asyncio.gather(*map(ask, batch))
        return time.perf_counter() - started, list(said)


async def ask_our_way(changes: dict[str, Any], config: VerifierConfig, batch: list[Pair]) -> tuple[float, list[str]]:
    """With our verifier."""
    verifier = build(config.model_copy(update=changes))
    await verifier.start()
    try:
        await verifier.verify(Pair("warm", "up"))
        started = time.perf_counter()
        judgements = await asyncio.gather(*map(verifier.verify, batch))
        took_s = time.perf_counter() - started
    finally:
        await verifier.aclose()
    return took_s, [one.category.label if isinstance(one, Verdict) else one.detail for one in judgements]


WAYS: dict[str, Ask] = {
    "plain client": ask_plainly,
    "constrained label": partial(ask_our_way, {"decoding": "choice"}),
    "first token": partial(ask_our_way, {"decoding": "first_token", "chats_per_request": 1}),
    "first token, 8 a request": partial(ask_our_way, {"decoding": "first_token"}),
}


@dataclass(frozen=True)
class Run:
    """One way of asking, measured once."""

    seconds: float
    client_cpu_s: float
    server_cpu_s: float
    labels: list[str]


def server_cpu_s() -> float:
    """Processor seconds of all processes below this one."""
    return sum(sum(process.cpu_times()[:2]) for process in psutil.Process().children(recursive=True))


def measure(ask: Ask, config: VerifierConfig, batch: list[Pair]) -> Run:
    """Processor times include the client's start-up."""
    client_s, servers_s = time.process_time(), server_cpu_s()
    seconds, labels = asyncio.run(ask(config, batch))
    return Run(seconds, time.process_time() - client_s, server_cpu_s() - servers_s, labels)


def compare(config: VerifierConfig, count: int) -> dict[str, tuple[Run, int]]:
    """The better run of each way, and how many of its labels are the plain client's."""
    best: dict[str, tuple[Run, int]] = {}
    for turn in range(ROUNDS):
        batch = pairs(count, turn)
        runs = {name: measure(ask, config, batch) for name, ask in WAYS.items()}
        said = runs["plain client"].labels
        for name, run in runs.items():
            agree = sum(one == other for one, other in zip(run.labels, said, strict=True))
            best[name] = min((run, agree), best.get(name, (run, agree)), key=lambda one: one[0].seconds)
    return best


def main() -> None:
    """Start the judge with prefix caching and without, compare the ways for both prompts, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=600)
    parser.add_argument("--concurrency", type=int, default=64)
    options = parser.parse_args()
    title = f"{options.pairs} pairs, {options.concurrency} at once; load average {os.getloadavg()[0]:.1f} before"
    table = Table("caching", "prompt", "way", "verdicts/s", "ratio", "client ms", "server ms", "agree", title=title)
    for caching in (True, False):
        pool = PoolConfig(
            gpus_per_replica=0, dtype="float32", max_model_len=4096,
            engine_args={"enforce_eager": True, "max_num_seqs": 64, "enable_prefix_caching": caching},
        )  # fmt: skip
        judge = VerifierConfig(
            name="laptop", model=str(JUDGE), served_model_name="laptop-judge", prompt="compact", pool=pool, probe=False,
            exact_shortcut=False, cache_size=0, max_concurrency=options.concurrency,
            request_timeout_s=60,  # client, API server and engine share the cores
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            command = partial(vllm_command, judge, pool)
            replica = Replica(command, Path(folder) / "judge.log", env=environment.variables())
            replica.start()
            try:
                replica.wait_ready(STARTUP_S)
                running = judge.model_copy(update={"endpoints": (replica.url + "/v1",), "pool": None})
                for prompt in ("compact", "base"):
                    best = compare(running.model_copy(update={"prompt": prompt}), options.pairs)
                    plain_s = best["plain client"][0].seconds
                    for name, (run, agree) in best.items():
                        per_verdict = [1000 * value / options.pairs for value in (run.client_cpu_s, run.server_cpu_s)]
                        table.add_row(
                            "on" if caching else "off", prompt, name, f"{options.pairs / run.seconds:.1f}",
                            f"{plain_s / run.seconds:.2f}", *(f"{value:.2f}" for value in per_verdict), f"{agree}",
                        )  # fmt: skip
            finally:
                replica.stop()
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
