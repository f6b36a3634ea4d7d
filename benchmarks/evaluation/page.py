"""Size of a report's page at scale, and how fast a browser shows and filters it.

    python benchmarks/evaluation/page.py                      # 100,000 samples, 4 runs
    python benchmarks/evaluation/page.py --samples 250000     # a million answers

Prints seconds to write the page, its size, and, where Chromium is installed, milliseconds until it has drawn itself and
milliseconds for filters over all samples.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "fixtures")]

import chromium  # noqa: E402
import evaluation_demo  # noqa: E402

from speciarl.evaluation import report  # noqa: E402

FILTERS = {
    "outcome of A": "menu('Outcome of', '4')",
    "A and B differ": "document.querySelector('#browser input[type=checkbox]').click()",
    "text": "search('kind 7')",
    "no text": "search('')",
    "scope (all charts)": "menu('Show', '2')",
}
HELPERS = """
globalThis.menu = (name, value) => {
  const label = [...document.querySelectorAll('label')].find(one => one.textContent.startsWith(name));
  const menu = label.querySelector('select');
  menu.value = value; menu.dispatchEvent(new Event('change'));
};
globalThis.search = (text) => {
  const field = document.querySelector('#browser input[type=search]');
  field.value = text; field.dispatchEvent(new Event('input'));
};
globalThis.timed = (act) => {
  const begin = performance.now();
  act();
  document.body.offsetHeight; // lays the page out
  return performance.now() - begin;
};
"""


async def browse(page: Path) -> None:
    """Print what a browser needs for the page."""
    async with chromium.tab() as tab:
        await tab.open(page)
        drawn = await tab.run("performance.getEntriesByType('navigation')[0].domComplete")
        print(f"drawn after {drawn:.0f} ms; messages {tab.messages}, requests {tab.requests}")
        await tab.run(HELPERS)
        for name, act in FILTERS.items():
            times = [await tab.run(f"timed(() => {act})") for _ in range(3)]
            print(f"{name:<20} {min(times):.0f} to {max(times):.0f} ms")
        memory = await tab.run("performance.memory.usedJSHeapSize")
        print(f"memory {memory / 2**20:.0f} MiB")


def main() -> None:
    """Make an evaluation, write its report and look at it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--classes", type=int, default=200, help="of each of the four data sets")
    parser.add_argument("--n", type=int, default=1, help="answers to each question")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        config, results = evaluation_demo.make(
            out, samples=given.samples // 4, classes=given.classes, n=given.n, pictures=given.samples <= 100_000
        )
        begin = time.perf_counter()
        page = report.write(config, results, out)[-1]
        print(f"{given.samples:,} samples, 4 runs, n = {given.n}: written in {time.perf_counter() - begin:.1f} s")
        print(f"{page.stat().st_size / 1e6:.2f} MB")
        if chromium.PROGRAM is None:
            print("no Chromium here: times in a browser are left out")
        else:
            asyncio.run(browse(page))


if __name__ == "__main__":
    main()
