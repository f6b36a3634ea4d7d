"""Commands of the emoji world."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from speciarl.utils.cli_errors import one_line_io_errors

if TYPE_CHECKING:
    from data_prep.config import EmojiConfig


def draw(config: EmojiConfig, quiet: bool) -> None:
    """Write the emoji files, with a progress bar."""
    from collections import Counter

    from tqdm import tqdm

    from data_prep.emoji.concepts import load_concepts
    from data_prep.emoji.dataset import build, plan

    concepts = load_concepts()
    total = sum(map(len, plan(concepts, config.train_views).values()))
    with tqdm(total=total, unit="view", desc="emoji", disable=quiet) as bar:
        counts = build(concepts, config.out, config.seed, config.train_views, bar.update)
    domains = ", ".join(f"{name} {count}" for name, count in Counter(c.domain for c in concepts).items())
    written = ", ".join(f"{name} ({count})" for name, count in counts.items())
    typer.echo(f"{config.out}: {written}; concepts: {domains}")


def emoji(
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where to write; made if missing.")],
    seed: Annotated[int, typer.Option("--seed", help="Seed of the augmentation.")] = 0,
    train_views: Annotated[int, typer.Option("--train-views", min=1, help="Views per animal.")] = 8,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Draw emoji with Unicode's group > subgroup > name hierarchy: what `build dataset=emoji` writes.

    Writes train.parquet (animals), test.parquet (animals, food, travel, objects; other views) and taxonomy.json. Takes
    some seconds and needs no network. The same seed gives the same bytes.
    """
    from data_prep.config import EmojiConfig

    with one_line_io_errors():
        draw(EmojiConfig(out=out, seed=seed, train_views=train_views), quiet)


def emoji_facts(
    emoji_test: Annotated[Path, typer.Option("--emoji-test", metavar="FILE", help="Unicode's emoji-test.txt.")],
    out: Annotated[Path, typer.Option("--out", metavar="CSV", help="The table to write.")],
) -> None:
    """Regenerate the committed table of emoji facts.

    Reduces Unicode's emoji-test.txt (Debian: unicode-data) and the aliases of the PyPI package emoji to the table that
    the package ships.
    """
    from data_prep.emoji.facts import package_aliases, parse_emoji_test, to_csv
    from speciarl.utils.atomic_files import write_text

    with one_line_io_errors():
        with emoji_test.open(encoding="utf-8") as lines:
            facts = parse_emoji_test(lines, package_aliases())
        write_text(out, to_csv(facts))
        typer.echo(f"{out}: {len(facts)} facts")
