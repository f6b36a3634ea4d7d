"""First-token judging against grammar-constrained choice, on one real vLLM server with the laptop judge.

    python benchmarks/verifier/judge_decoding.py --pairs 600 --concurrency 32

Prints verdicts per second of both, their ratio, and how many verdicts agree. Every pair is asked once, no cache.
"""

import argparse
import asyncio
import itertools
import tempfile
import time
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

import speciarl
from speciarl.cpu import environment
from speciarl.verdict import Judgement, Pair, Verdict
from speciarl.verifier_server import PoolConfig, VerifierConfig, build
from speciarl.verifier_server.replica import Replica, vllm_command

JUDGE = Path(speciarl.__file__).parent / "laptop" / "models" / "judge"
STARTUP_S = 180.0
WORDS = ("dog face", "cat face", "animal mammal", "animals nature", "none", "red apple", "food fruit", "food drink")


def pairs(count: int) -> list[Pair]:
    """Distinct pairs: known words, told apart by a number where the words run out."""
    combinations = itertools.product(itertools.count(), WORDS, WORDS)
    return [
        Pair(truth, f"{answer} {turn}" if turn else answer)
        for turn, truth, answer in itertools.islice(combinations, count)
    ]


async def measure(config: VerifierConfig, batch: list[Pair]) -> tuple[float, list[Judgement]]:
    """Seconds for the batch, and its judgements; start-up is not counted."""
    verifier = build(config)
    await verifier.start()
    try:
        started = time.perf_counter()
        judgements = await asyncio.gather(*(verifier.verify(pair) for pair in batch))
        return time.perf_counter() - started, list(judgements)
    finally:
        await verifier.aclose()


def main() -> None:
    """Start the judge, measure both ways in turn, twice, and print the better time of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=600)
    parser.add_argument("--concurrency", type=int, default=32)
    options = parser.parse_args()
    pool = PoolConfig(
        gpus_per_replica=0, dtype="float32", max_model_len=256,
        engine_args={"enforce_eager": True, "max_num_seqs": 32, "enable_prefix_caching": True},
    )  # fmt: skip
    judge = VerifierConfig(
        name="laptop", model=str(JUDGE), served_model_name="laptop-judge", prompt="compact", pool=pool,
        exact_shortcut=False, cache_size=0, max_concurrency=options.concurrency,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        replica = Replica(partial(vllm_command, judge, pool), Path(folder) / "judge.log", env=environment.variables())
        replica.start()
        try:
            replica.wait_ready(STARTUP_S)
            running = judge.model_copy(update={"endpoints": (replica.url + "/v1",), "pool": None})
            batch = pairs(options.pairs)
            seconds: dict[str, float] = {}
            judgements: dict[str, list[Judgement]] = {}
            for decoding in ("first_token", "choice") * 2:
                config = running.model_copy(update={"decoding": decoding})
                took, judgements[decoding] = asyncio.run(measure(config, batch))
                seconds[decoding] = min(took, seconds.get(decoding, took))
        finally:
            replica.stop()
    table = Table("decoding", "verdicts/s", "ratio", title=f"{options.pairs} pairs, {options.concurrency} at a time")
    for decoding, took in seconds.items():
        table.add_row(decoding, f"{options.pairs / took:.1f}", f"{seconds['choice'] / took:.2f}")
    console = Console()
    console.print(table)
    same = sum(
        isinstance(one, Verdict) and isinstance(other, Verdict) and one.category is other.category
        for one, other in zip(judgements["first_token"], judgements["choice"], strict=True)
    )
    console.print(f"equal verdicts: {same} of {options.pairs}")


if __name__ == "__main__":
    main()
