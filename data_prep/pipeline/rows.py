"""Rows as veRL's RLHFDataset reads them: columns, types and the file's metadata."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from data_prep.images.encode import Encoded
from data_prep.pipeline.prompts import Prompt
from data_prep.readers.base import Sample

ABILITY = "classification"
STYLE = "verifier"
METADATA_PREFIX = "data_prep."
"""Prefix of our keys in a file's metadata: ``name``, ``datasets`` (JSON), ``config`` (JSON), ``seed``, ``version``."""


def row(sample: Sample, source: str, image: Encoded, prompt: Prompt, split: str, index: int) -> dict[str, Any]:
    """One row. ``sample_id`` names the image for good; ``index`` is the row's number in the file `split`."""
    return {
        "data_source": source,
        "prompt": [{"role": "user", "content": prompt.text}],
        "images": [{"bytes": image.data, "path": None}],
        "ability": ABILITY,
        "reward_model": {"style": STYLE, "ground_truth": sample.label},
        "extra_info": {
            "index": index,
            "split": split,
            "sample_id": sample.id,
            "label_path": list(sample.label_path),
            "source": source,
            "source_split": sample.split,
            "prompt_id": prompt.id,
        },
    }


def schema(metadata: Mapping[str, str]) -> Any:
    """The pyarrow schema of the rows, with `metadata` under our prefix."""
    import pyarrow as pa

    text = pa.string()
    extra_info = [
        ("index", pa.int64()),
        ("split", text),
        ("sample_id", text),
        ("label_path", pa.list_(text)),
        ("source", text),
        ("source_split", text),
        ("prompt_id", text),
    ]
    fields = [
        ("data_source", text),
        ("prompt", pa.list_(pa.struct([("role", text), ("content", text)]))),
        ("images", pa.list_(pa.struct([("bytes", pa.binary()), ("path", text)]))),
        ("ability", text),
        ("reward_model", pa.struct([("style", text), ("ground_truth", text)])),
        ("extra_info", pa.struct(extra_info)),
    ]
    return pa.schema(fields, metadata={f"{METADATA_PREFIX}{key}": value for key, value in metadata.items()})


def metadata_of(schema_with_metadata: Any) -> dict[str, str]:
    """The metadata that `schema` was given, from a file's schema; empty for a file of other origin."""
    stored = schema_with_metadata.metadata or {}
    return {
        key.decode().removeprefix(METADATA_PREFIX): value.decode()
        for key, value in stored.items()
        if key.startswith(METADATA_PREFIX.encode())
    }
