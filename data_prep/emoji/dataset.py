"""Emoji dataset: parquet files with one augmented view per row, in the columns that veRL's RLHFDataset reads."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from data_prep.emoji.artwork import read_svg, render
from data_prep.emoji.concepts import TRAIN_DOMAIN
from data_prep.emoji.facts import Concept
from data_prep.emoji.taxonomy import taxonomy
from data_prep.emoji.views import to_png, view, view_rng
from speciarl.utils.atomic_files import write_bytes, write_text

PROMPT = "<image>Name it."
"""Short on purpose: the laptop policy pays for every prompt token."""
TRAIN, TEST = "train", "test"
TEST_VIEWS = 1

Progress = Callable[[int], object]


def plan(concepts: Sequence[Concept], train_views: int) -> dict[str, list[tuple[Concept, int]]]:
    """Views of each file, as (concept, number): of the training domain many for train, of every domain one for test."""
    trained = [concept for concept in concepts if concept.domain == TRAIN_DOMAIN]
    return {
        TRAIN: [(concept, number) for number in range(train_views) for concept in trained],
        TEST: [(concept, number) for concept in concepts for number in range(TEST_VIEWS)],
    }


def row(concept: Concept, split: str, number: int, index: int, png: bytes) -> dict[str, Any]:
    """One row. ``sample_id`` names the view for good; ``index`` is the row's number in the file."""
    return {
        "data_source": concept.domain,
        "prompt": [{"role": "user", "content": PROMPT}],
        "images": [{"bytes": png, "path": None}],
        "ability": "classification",
        "reward_model": {"style": "verifier", "ground_truth": concept.name},
        "extra_info": {
            "index": index,
            "split": split,
            "sample_id": f"{split}/{'-'.join(concept.fact.codepoints)}/{number}",
            "stratum": concept.stratum.value,
            "label_path": list(concept.label_path),
        },
    }


def rows(views: Sequence[tuple[Concept, int]], split: str, seed: int, progress: Progress) -> Iterator[dict[str, Any]]:
    """Rows of the planned views, drawn as they are asked for. Raises ``DataPrepError`` when artwork is missing."""
    drawings: dict[int, Any] = {}
    for index, (concept, number) in enumerate(views):
        if concept.index not in drawings:
            drawings[concept.index] = render(read_svg(concept.fact))
        picture = view(drawings[concept.index], view_rng(seed, split, concept.name, number))
        yield row(concept, split, number, index, to_png(picture))
        progress(1)


def to_parquet(content: Sequence[dict[str, Any]]) -> bytes:
    """The rows as one parquet file; the same rows give the same bytes under the same pyarrow."""
    import pyarrow as pa
    from pyarrow import parquet

    text, number = pa.string(), pa.int64()
    schema = pa.schema(
        [
            ("data_source", text),
            ("prompt", pa.list_(pa.struct([("role", text), ("content", text)]))),
            ("images", pa.list_(pa.struct([("bytes", pa.binary()), ("path", text)]))),
            ("ability", text),
            ("reward_model", pa.struct([("style", text), ("ground_truth", text)])),
            (
                "extra_info",
                pa.struct(
                    [
                        ("index", number),
                        ("split", text),
                        ("sample_id", text),
                        ("stratum", text),
                        ("label_path", pa.list_(text)),
                    ]
                ),
            ),
        ]
    )
    out = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(list(content), schema=schema), out)
    return out.getvalue()


def build(concepts: Sequence[Concept], folder: Path, seed: int, train_views: int, progress: Progress) -> dict[str, int]:
    """Write train.parquet, test.parquet and taxonomy.json into ``folder``; returns rows per file.

    Raises ``DataPrepError`` for missing artwork and ``OSError`` when the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    counts: dict[str, int] = {}
    for split, views in plan(concepts, train_views).items():
        content = list(rows(views, split, seed, progress))
        write_bytes(folder / f"{split}.parquet", to_parquet(content))
        counts[f"{split}.parquet"] = len(content)
    tree = taxonomy(concepts)
    write_text(folder / "taxonomy.json", json.dumps(tree, indent=1, ensure_ascii=False) + "\n")
    counts["taxonomy.json"] = len(tree["nodes"])
    return counts
