"""Table of the last validation of every run of a sweep, from veRL's file logger.

python examples/sweep/compare.py speciarl-runs
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

SCORES = ("correctness", "specificity", "hm")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; returns the exit status, 2 when there is nothing to show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="directory of the file logger, named after trainer.project_name")
    options = parser.parse_args(arguments)
    table = Table("run", "step", *SCORES, title="last validation, mean over data sources")
    for path in sorted(options.folder.glob("*.jsonl")):
        found = last_validation(path.read_text(encoding="utf-8").splitlines())
        if found is not None:
            step, scores = found
            table.add_row(path.stem, str(step), *(f"{scores[name]:.3f}" if name in scores else "-" for name in SCORES))
    if not table.row_count:
        print(f"{options.folder} holds no run with a validation (trainer.logger must list `file`)")
        return 2
    Console().print(table)
    return 0


def last_validation(lines: Sequence[str]) -> tuple[int, Mapping[str, Any]] | None:
    """The step and the scores of the last validation in a log, if there was one."""
    for line in reversed(lines):
        row = json.loads(line) if line.endswith("}") else {"data": {}}  # the last line may be half written
        scores = {
            name: row["data"][f"val-core/mean/{name}"] for name in SCORES if f"val-core/mean/{name}" in row["data"]
        }
        if scores:
            return int(row["step"]), scores
    return None


if __name__ == "__main__":
    raise SystemExit(main())
