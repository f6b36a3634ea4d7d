"""What the predict stage costs beside the engine: answers per second, memory, and the start with much done already.

    python benchmarks/evaluation/predict.py scripted                   # the stage alone; the engine does nothing
    python benchmarks/evaluation/predict.py memory                     # from 20,000 to 200,000 rows
    python benchmarks/evaluation/predict.py resume --answers 1000000   # of a million answers that are there
    python benchmarks/evaluation/predict.py vllm                       # against vLLM's own LLM.generate

`vllm` puts the same requests (the laptop's policy, emoji) in turn through the stage's engine and store and through
`LLM.generate`, each in a process of its own that loads once, and prints the ratio of their answers per second.
"""

import argparse
import asyncio
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from rich.console import Console

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "fixtures"))

from scripted_engine import ScriptedEngine  # noqa: E402

from speciarl.evaluation.config import DatasetConfig, EngineConfig, EvaluationConfig, SamplingConfig, parse  # noqa: E402
from speciarl.evaluation.predict.answer_store import AnswerStore  # noqa: E402
from speciarl.evaluation.predict.cell import Cell  # noqa: E402
from speciarl.evaluation.predict.generate import generate  # noqa: E402
from speciarl.evaluation.predict.sampling import resolve  # noqa: E402
from speciarl.evaluation.predict.stage import predict  # noqa: E402

POLICY = ROOT / "speciarl" / "laptop" / "models" / "policy"
ROUNDS = 5
ARGUMENTS: dict[str, Any] = {
    "enforce_eager": True,
    "max_num_seqs": 256,
    "max_num_batched_tokens": 4096,
    "kv_cache_memory_bytes": 2**28,
    "distributed_executor_backend": "uni",
}


def test_set(folder: Path, rows: int) -> Path:
    """A file of small pictures, all different."""
    path = folder / f"{rows}.parquet"
    records = []
    for number in range(rows):
        out = io.BytesIO()
        Image.new("RGB", (8, 8), (number % 256, number // 256 % 256, number // 65536)).save(out, "PNG")
        records.append(
            {
                "data_source": "pictures",
                "prompt": [{"role": "user", "content": "<image>Name it."}],
                "images": [{"bytes": out.getvalue(), "path": None}],
                "reward_model": {"style": "verifier", "ground_truth": f"thing {number % 200}"},
                "extra_info": {"sample_id": f"p/{number}", "label_path": ["thing", f"thing {number % 200}"]},
            }
        )
    pq.write_table(pa.Table.from_pylist(records), path)
    return path


def settings(folder: Path, file: Path, n: int) -> EvaluationConfig:
    return parse(
        {
            "out": folder / "out",
            "models": {"m": {"path": "none", "endpoint": "http://localhost:1/v1"}},
            "datasets": {"d": {"file": str(file)}},
            "judges": {"j": {"use": "taxonomy"}},
            "sampling": {"n": n, "temperature": 0.6},
        }
    )


def run_scripted(folder: Path, file: Path, n: int) -> float:
    """Seconds of the whole stage."""
    started = time.perf_counter()
    config = settings(folder, file, n)
    asyncio.run(predict(config, Console(file=io.StringIO()), lambda *_: ScriptedEngine()))
    return time.perf_counter() - started


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def scripted(folder: Path, options: argparse.Namespace) -> None:
    for n in (1, 64):
        rows = options.answers // n
        seconds = run_scripted(folder / str(n), test_set(folder, rows), n)
        print(f"{rows} questions x {n}: {rows * n / seconds:,.0f} durable answers/s ({seconds:.1f} s)")


def memory(folder: Path, options: argparse.Namespace) -> None:
    del options
    peaks = []
    for rows in (20_000, 200_000):
        file = test_set(folder, rows)
        words = [sys.executable, __file__, "one", "--file", str(file), "--folder", str(folder / f"run{rows}")]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        peaks.append(float(done.stdout))
        print(f"{rows} rows: {peaks[-1]:.0f} MB at the peak")
    print(f"grows by {peaks[1] - peaks[0]:.0f} MB")


def one(folder: Path, options: argparse.Namespace) -> None:
    del folder
    run_scripted(options.folder, options.file, 1)
    print(peak_mb())


def resume(folder: Path, options: argparse.Namespace) -> None:
    file = test_set(folder, options.answers // 64)
    first = run_scripted(folder, file, 64)
    print(f"{options.answers} answers made in {first:.1f} s")
    print(f"the same command again: {run_scripted(folder, file, 64):.1f} s")
    for path in (folder / "out" / "predictions").rglob("*.parquet"):
        path.unlink()
    print(f"without the tables of predictions: {run_scripted(folder, file, 64):.1f} s")


def vllm(folder: Path, options: argparse.Namespace) -> None:
    words = {"ours": ["ours"], "LLM.generate": ["bare"]}
    common = ["--data", str(options.data), "--n", str(options.n)]
    children = {
        name: subprocess.Popen(
            [sys.executable, __file__, *word, *common], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            stderr=(folder / f"{word[0]}.log").open("w"),
        )
        for name, word in words.items()
    }  # fmt: skip
    speeds: dict[str, list[float]] = {name: [] for name in words}
    for child in children.values():
        _line(child)  # ready
    for number in range(ROUNDS + 1):  # the first warms up
        for name, child in children.items():
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
            speed = json.loads(_line(child))
            if number:
                speeds[name].append(speed)
    for child in children.values():
        assert child.stdin is not None
        child.stdin.close()
        child.wait()
    for name, found in speeds.items():
        print(f"{name}: {statistics.median(found):,.0f} answers/s ({min(found):,.0f} to {max(found):,.0f})")
    ratios = [ours / bare for ours, bare in zip(*speeds.values(), strict=True)]
    print(f"ratio, round by round: {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")


def _line(child: "subprocess.Popen[str]") -> str:
    assert child.stdout is not None
    while (line := child.stdout.readline()) and not line.startswith("> "):
        pass
    return line.removeprefix("> ")


def _sampling(n: int) -> SamplingConfig:
    return SamplingConfig(n=n, temperature=0.6, top_p=0.95, max_tokens=24)


def ours(folder: Path, options: argparse.Namespace) -> None:
    from speciarl.evaluation.config import ModelConfig
    from speciarl.evaluation.models import identify
    from speciarl.evaluation.predict.vllm_engine import VllmEngine

    async def rounds() -> None:
        config = EngineConfig(dtype="float32", max_model_len=128, args=ARGUMENTS, window=options.window)
        engine = VllmEngine(
            identify(ModelConfig(path=str(POLICY)), lambda line: None), config, folder, lambda line: None
        )
        await engine.start()
        print("> ready", flush=True)
        sampling = _sampling(options.n)
        effective, _ = resolve(sampling, {})
        number = 0
        while await asyncio.to_thread(sys.stdin.readline):
            number += 1
            store = AnswerStore(folder / str(number), engine.setup)
            cell = Cell.of("emoji", DatasetConfig(file=str(options.data)), None, sampling, greedy=False)
            started = time.perf_counter()
            made = (await generate(cell.missing(store), engine, effective, store, options.window)).made
            print(f"> {made / (time.perf_counter() - started)}", flush=True)
            store.close()
        await engine.aclose()

    asyncio.run(rounds())


def bare(folder: Path, options: argparse.Namespace) -> None:
    del folder
    from speciarl.cpu import environment, stack

    if stack.active():
        environment.apply(os.environ)
    from vllm import LLM, SamplingParams

    engine = LLM(
        str(POLICY),
        dtype="float32",
        max_model_len=128,
        mm_processor_cache_gb=4,
        enable_prefix_caching=True,
        limit_mm_per_prompt={"image": 1, "video": 0},
        **ARGUMENTS,
    )
    tokenizer = engine.get_tokenizer()
    sampling = _sampling(options.n)
    effective, _ = resolve(sampling, {})
    cell = Cell.of("emoji", DatasetConfig(file=str(options.data)), None, sampling, greedy=False)
    with tempfile.TemporaryDirectory() as empty:
        store = AnswerStore(Path(empty), {})
        missing = list(cell.missing(store))
        store.close()
    content = [{"type": "image"}, {"type": "text", "text": "Name it."}]
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    print("> ready", flush=True)
    while sys.stdin.readline():
        started = time.perf_counter()
        pictures = [Image.open(io.BytesIO(part.question.images[0])).convert("RGB") for part in missing]
        prompts: Sequence[Any] = [{"prompt": text, "multi_modal_data": {"image": picture}} for picture in pictures]
        parameters = [SamplingParams(n=options.n, seed=part.seeds[0], **effective.as_dict()) for part in missing]
        found = engine.generate(prompts, parameters, use_tqdm=False)
        made = sum(len(request.outputs) for request in found)
        print(f"> {made / (time.perf_counter() - started)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = {function.__name__: function for function in (scripted, memory, resume, vllm, one, ours, bare)}
    parser.add_argument("what", choices=what)
    parser.add_argument("--answers", type=int, default=64_000)
    parser.add_argument("--n", type=int, default=4)
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--data", type=Path, default=Path("data/emoji/test.parquet"))
    parser.add_argument("--file", type=Path)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        what[options.what](Path(folder), options)


if __name__ == "__main__":
    main()
