"""Builds of parquet from JPEG files: this package against the plain route, and memory at a hundred thousand images.

    python benchmarks/data/build.py                          speed and size on 1,500 images, three rounds in turn
    python benchmarks/data/build.py --images 500 --rounds 1
    python benchmarks/data/build.py --memory 100000          peak memory of one build of that many images

The plain route is what a script with Hugging Face `datasets` does: load the image folder, turn each image to RGB, write
parquet; the library then stores PNG. Both get the same files and as many workers as there are cores, each in a process
of its own, and start from a warm page cache. Images are synthetic photographs (noise at every scale): 500 x 375 pixels,
JPEG quality 90. Prints medians and ratios.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

SIZE = (500, 375)
CLASSES = 50
DISTINCT = 200
"""Different images; more files are links to them, which costs readers the same and the disk less."""
PROGRESS = Console(stderr=True)


def photograph(number: int) -> bytes:
    """A JPEG whose detail falls off with frequency as that of photographs does."""
    random = np.random.default_rng(number)
    picture = np.zeros((SIZE[1], SIZE[0], 3), np.float32)
    for cells in (3, 6, 12, 25, 50, 100, 200, 400):
        small = random.uniform(-1, 1, (cells * 3 // 4 + 1, cells, 3)).astype(np.float32)
        planes = [Image.fromarray(small[..., plane]).resize(SIZE, Image.Resampling.BICUBIC) for plane in range(3)]
        picture += np.stack(planes, axis=-1) / cells**0.4
    spread = picture.std()
    out = io.BytesIO()
    Image.fromarray(np.clip(128 + 55 * picture / spread, 0, 255).astype(np.uint8)).save(out, "JPEG", quality=90)
    return out.getvalue()


def make_folder(folder: Path, images: int) -> None:
    """train/<class>/<image>.jpg."""
    originals = folder / "originals"
    originals.mkdir(parents=True)
    distinct = min(images, DISTINCT)
    for number in track(range(distinct), "drawing", transient=True, console=PROGRESS):
        (originals / f"{number}.jpg").write_bytes(photograph(number))
    for number in range(images):
        place = folder / "train" / f"class_{number % CLASSES:03d}"
        place.mkdir(parents=True, exist_ok=True)
        os.link(originals / f"{number % distinct}.jpg", place / f"{number:06d}.jpg")


def ours(root: Path, out: Path, workers: int) -> None:
    """``python -m data_prep build dataset=image_folder``."""
    from data_prep.compose import settings
    from data_prep.config import BuildConfig
    from data_prep.pipeline.build import build

    words = ["dataset=image_folder", f"root={root}", f"out={out}", "splits.test=[]", f"workers={workers}"]
    config = settings(words)
    assert isinstance(config, BuildConfig)
    build(config)


def plain(root: Path, out: Path, workers: int) -> None:
    """The same columns by way of `datasets`."""
    import datasets

    datasets.disable_progress_bars()
    data = datasets.load_dataset(
        "imagefolder", data_dir=str(root / "train"), split="train", cache_dir=str(out / "cache")
    )
    names = data.features["label"].names

    def row(cells: dict[str, object], index: int) -> dict[str, object]:
        label = names[cells["label"]].replace("_", " ")  # type: ignore[index]
        return {
            "data_source": "image_folder",
            "prompt": [{"role": "user", "content": "<image>What is it?"}],
            "images": [cells["image"].convert("RGB")],  # type: ignore[attr-defined]
            "ability": "classification",
            "reward_model": {"style": "verifier", "ground_truth": label},
            "extra_info": {"index": index, "split": "train"},
        }

    rows = data.map(row, with_indices=True, remove_columns=data.column_names, num_proc=workers)
    rows.to_parquet(str(out / "train.parquet"))


def measured(route: str, root: Path, workers: int) -> dict[str, float]:
    """Seconds, bytes per image of the file, and peak memory of one build in a process of its own."""
    with tempfile.TemporaryDirectory(dir=root) as out:
        command = [
            sys.executable,
            __file__,
            "--route",
            route,
            "--root",
            str(root),
            "--out",
            out,
            "--workers",
            str(workers),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr)
        found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return found


def run_route(route: str, root: Path, out: Path, workers: int) -> None:
    """What the subprocess does."""
    import datasets  # noqa: F401  (imports are not part of what is compared)
    import hydra  # noqa: F401

    import data_prep.checks.validate
    import data_prep.pipeline.build

    begun = time.perf_counter()
    (ours if route == "ours" else plain)(root, out, workers)
    seconds = time.perf_counter() - begun
    # The largest process: the plain route's workers hold their own memory beside it.
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    size = (out / "train.parquet").stat().st_size
    found = {"seconds": seconds, "bytes": size, "peak_mb": peak / 1024}
    if route == "ours":
        begun = time.perf_counter()
        faults = list(data_prep.checks.validate.faults(out / "train.parquet"))
        found["check_seconds"] = time.perf_counter() - begun
        if faults:
            raise SystemExit(f"the built file has faults: {faults[0]}")
    print(json.dumps(found))


def compare(images: int, rounds: int, workers: int) -> None:
    """Both routes in turn, several times."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_folder(root, images)
        original = sum(file.stat().st_size for file in (root / "train").rglob("*.jpg")) / images
        results: dict[str, list[dict[str, float]]] = {"ours": [], "plain": []}
        for _ in track(range(rounds), "rounds", transient=True, console=PROGRESS):
            for route, found in results.items():
                found.append(measured(route, root, workers))
    median = {
        route: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for route, runs in results.items()
    }
    table = Table("route", "images/s", "bytes/image", "peak MB of a process", box=None)
    for route, values in median.items():
        speed = f"{images / values['seconds']:.0f}"
        table.add_row(route, speed, f"{values['bytes'] / images:.0f}", f"{values['peak_mb']:.0f}")
    console = Console()
    console.print(f"{machine(workers)}; {images} JPEG files of {original:.0f} bytes; median of {rounds} rounds")
    console.print(table)
    ratio = {key: median["plain"][key] / median["ours"][key] for key in ("seconds", "bytes")}
    console.print(f"ours is {ratio['seconds']:.1f} times as fast and {ratio['bytes']:.1f} times as small")
    console.print(
        "seconds: "
        + "; ".join(f"{r}: " + ", ".join(f"{v['seconds']:.1f}" for v in runs) for r, runs in results.items())
    )


def memory(images: int, workers: int) -> None:
    """One build of many images."""
    with tempfile.TemporaryDirectory() as folder:
        make_folder(Path(folder), images)
        found = measured("ours", Path(folder), workers)
    print(
        f"{machine(workers)}; {images} images, {found['bytes'] / 1e9:.2f} GB written, "
        f"{images / found['seconds']:.0f} images/s, peak memory {found['peak_mb']:.0f} MB; "
        f"the check at the start of training takes {found['check_seconds']:.1f} s"
    )


def machine(workers: int) -> str:
    """Set-up of the run in words."""
    load = os.getloadavg()[0]
    return f"{workers} workers on {os.cpu_count()} cores, Python {platform.python_version()}, load {load:.1f}"


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--memory", type=int, metavar="IMAGES")
    for hidden in ("--route", "--root", "--out"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.route:
        run_route(given.route, Path(given.root), Path(given.out), given.workers)
    elif given.memory:
        memory(given.memory, given.workers)
    else:
        compare(given.images, given.rounds, given.workers)


if __name__ == "__main__":
    main()
