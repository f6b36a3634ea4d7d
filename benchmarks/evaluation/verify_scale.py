"""Verify stage at scale: rows per second and memory from 20,000 to a million answers, by the taxonomy judge.

python benchmarks/evaluation/verify_scale.py [ROWS ...]
"""

import asyncio
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from speciarl.evaluation import tables
from speciarl.evaluation.verify.asking import Asking
from speciarl.evaluation.verify.stage import facts_of, judge_cell
from speciarl.verifier_server.config import parse_config
from speciarl.verifier_server.judge.taxonomy import TaxonomyVerifier

CLASSES = 200
DISTINCT = 3
"""One answer in so many is said once only; the others repeat the names of classes."""


def predictions(rows: int) -> Iterator[dict[str, Any]]:
    """Answers as a model that reasons would give them."""
    blank = dict.fromkeys(tables.PREDICTIONS.names)
    for row in range(rows):
        truth = f"class {row % CLASSES}"
        answer = f"some other name {row}" if row % DISTINCT == 0 else f"class {row % 7}"
        text = f"<think>{'because of its colour ' * 20}</think><answer>{answer}</answer>"
        yield {**blank, "sample_id": f"s{row}", "index": 0, "ground_truth": truth, "answer": answer, "text": text}


def peak_mb() -> float:
    """Most memory that this process has held, in MB."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def measure(folder: Path) -> tuple[int, float, float, float]:
    """Verify the predictions in a folder; pairs, seconds, seconds of the processor, and the memory's growth in MB."""
    taxonomy = folder / "taxonomy.json"
    nodes = [{"name": f"class {number}"} for number in range(CLASSES)]
    taxonomy.write_text(json.dumps({"version": 1, "nodes": nodes}))

    async def judge() -> int:
        verifier = TaxonomyVerifier(parse_config({"kind": "taxonomy", "taxonomy": str(taxonomy)}))
        await verifier.start()
        facts = facts_of("gold", {}, folder / "predictions.parquet", 512)
        return await judge_cell(
            Asking(verifier, 64), folder / "predictions.parquet", folder / "verdicts.parquet", facts
        )

    memory, begun, begun_cpu = peak_mb(), time.perf_counter(), time.process_time()
    pairs = asyncio.run(judge())
    return pairs, time.perf_counter() - begun, time.process_time() - begun_cpu, peak_mb() - memory


def main() -> None:
    """Measure each number of rows in a process of its own."""
    context = multiprocessing.get_context("spawn")
    for rows in map(int, sys.argv[1:] or ("20000", "200000", "1000000")):
        with tempfile.TemporaryDirectory() as folder, context.Pool(1) as pool:
            tables.write(Path(folder) / "predictions.parquet", tables.PREDICTIONS, predictions(rows), {})
            pairs, seconds, cpu, grown = pool.apply(measure, (Path(folder),))
        print(
            f"{rows:>9,} answers, {pairs:>9,} pairs: {seconds:6.1f} s, {cpu:6.1f} s of the processor "
            f"({rows / cpu:,.0f} answers/s), memory grew by {grown:,.0f} MB"
        )


if __name__ == "__main__":
    main()
