"""``python -m data_prep``: build the data sets."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from data_prep.atomic import write_bytes
from data_prep.emoji_concepts import load_concepts
from data_prep.emoji_dataset import TRAIN_VIEWS, build, plan
from data_prep.emoji_facts import package_aliases, parse_emoji_test, to_csv
from data_prep.errors import DataPrepError

USAGE_ERROR = 2


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, got {number}")
    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m data_prep", description="Build parquet files for SpeciaRL from public sources."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="DATASET")
    emoji = commands.add_parser(
        "emoji",
        help="emoji drawings with Unicode's group > subgroup > name hierarchy",
        description="Write train.parquet (animals), test.parquet (animals, food, travel, objects; other views) and "
        "taxonomy.json. Takes some seconds and needs no network. The same seed gives the same bytes.",
    )
    emoji.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where to write; made if missing")
    emoji.add_argument("--seed", type=int, default=0, help="seed of the augmentation (default: %(default)s)")
    emoji.add_argument(
        "--train-views", type=_count, default=TRAIN_VIEWS, metavar="N", help="views per animal (default: %(default)s)"
    )
    emoji.add_argument("--quiet", action="store_true", help="no progress bar")
    emoji.set_defaults(run=_emoji)
    facts = commands.add_parser(
        "emoji-facts",
        help="regenerate the committed table of emoji facts",
        description="Reduce Unicode's emoji-test.txt (Debian: unicode-data) and the aliases of the PyPI package emoji "
        "to the table that the package ships.",
    )
    facts.add_argument("--emoji-test", type=Path, required=True, metavar="FILE", help="Unicode's emoji-test.txt")
    facts.add_argument("--out", type=Path, required=True, metavar="CSV", help="the table to write")
    facts.set_defaults(run=_facts)
    return parser


def _emoji(arguments: argparse.Namespace) -> None:
    from tqdm import tqdm

    concepts = load_concepts()
    total = sum(map(len, plan(concepts, arguments.train_views).values()))
    with tqdm(total=total, unit="view", desc="emoji", disable=arguments.quiet) as bar:
        counts = build(concepts, arguments.out, arguments.seed, arguments.train_views, bar.update)
    domains = ", ".join(f"{name} {count}" for name, count in Counter(c.domain for c in concepts).items())
    written = ", ".join(f"{name} ({count})" for name, count in counts.items())
    print(f"{arguments.out}: {written}; concepts: {domains}")


def _facts(arguments: argparse.Namespace) -> None:
    with arguments.emoji_test.open(encoding="utf-8") as lines:
        facts = parse_emoji_test(lines, package_aliases())
    write_bytes(arguments.out, to_csv(facts).encode())
    print(f"{arguments.out}: {len(facts)} facts")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 done, 1 interrupted or not writable, 2 bad input."""
    parsed = _parser().parse_args(arguments)
    try:
        parsed.run(parsed)
    except DataPrepError as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE_ERROR
    except OSError as error:
        print(f"error: {error.filename or 'file'}: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; finished files are complete, no half-written ones are left", file=sys.stderr)
        return 1
    return 0
