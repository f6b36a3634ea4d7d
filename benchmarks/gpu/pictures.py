"""A small world to draw: shapes in colours and shades, as parquet rows of the usual columns and as a taxonomy."""

import io
import itertools
import json
import random
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from speciarl.utils.atomic_files import write_bytes

ROOT = "figure"
SHAPES = ("ring", "disc", "square", "frame", "triangle", "bar")
COLOURS = {
    "red": (214, 40, 40), "green": (46, 140, 70), "blue": (38, 84, 180), "yellow": (236, 196, 40),
    "purple": (130, 60, 160), "orange": (240, 130, 30), "brown": (120, 75, 45), "grey": (128, 128, 128),
}  # fmt: skip
SHADES = {"pale": 0.55, "light": 0.3, "plain": 0.0, "dull": -0.25, "dark": -0.5, "deep": -0.7}
"""How far a colour is moved towards white, or below 0 towards black."""
PROMPT = (
    "<image>What is the main subject of this picture? Name it.\n\nFirst reason about what you see inside <think> "
    "</think>. Then give a single name inside <answer> </answer>, and nothing else there."
)


def leaves() -> list[tuple[str, str, str]]:
    """Shade, colour and shape of everything that is drawn."""
    return list(itertools.product(SHADES, COLOURS, SHAPES))


def taxonomy() -> dict[str, Any]:
    """Figure > shape > coloured shape > shaded one, in the format of `speciarl.taxonomy`."""
    nodes: list[dict[str, Any]] = [{"name": ROOT}]
    nodes += [{"name": shape, "parent": ROOT} for shape in SHAPES]
    nodes += [{"name": f"{colour} {shape}", "parent": shape} for colour in COLOURS for shape in SHAPES]
    nodes += [{"name": " ".join(leaf), "parent": " ".join(leaf[1:])} for leaf in leaves()]
    return {"version": 1, "nodes": nodes}


def names() -> list[str]:
    """All names of the taxonomy, which are what the policy may answer."""
    return [node["name"] for node in taxonomy()["nodes"]]


def draw(leaf: tuple[str, str, str], pixels: int, seed: int) -> bytes:
    """A PNG of one leaf on a mottled ground; the seed moves it about."""
    shade, colour, shape = leaf
    chance, amount = random.Random(seed), SHADES[shade]
    towards = 255 if amount > 0 else 0
    ink = tuple(round(part + abs(amount) * (towards - part)) for part in COLOURS[colour])
    image = Image.effect_noise((pixels, pixels), 40).convert("RGB")
    brush, size = ImageDraw.Draw(image), pixels // 2
    left, top = chance.randrange(pixels - size), chance.randrange(pixels - size)
    box, width = (left, top, left + size, top + size), max(pixels // 16, 2)
    if shape in ("ring", "disc"):
        brush.ellipse(box, fill=ink if shape == "disc" else None, outline=ink, width=width)
    elif shape == "triangle":
        brush.polygon([(left, top + size), (left + size, top + size), (left + size // 2, top)], fill=ink)
    elif shape == "bar":
        brush.rectangle((left, top + size // 3, left + size, top + size // 2), fill=ink)
    else:
        brush.rectangle(box, fill=ink if shape == "square" else None, outline=ink, width=width)
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def row(leaf: tuple[str, str, str], index: int, pixels: int) -> dict[str, Any]:
    """One row as veRL's data set reads it."""
    return {
        "data_source": "pictures",
        "prompt": [{"role": "user", "content": PROMPT}],
        "images": [{"bytes": draw(leaf, pixels, index), "path": None}],
        "ability": "classification",
        "reward_model": {"style": "verifier", "ground_truth": " ".join(leaf)},
        "extra_info": {"index": index, "sample_id": f"picture/{index}"},
    }


def write(folder: Path, count: int, pixels: int) -> None:
    """`train.parquet` with so many pictures, drawn anew, and `taxonomy.json`."""
    import pyarrow as pa
    from pyarrow import parquet

    things = leaves()
    random.Random(0).shuffle(things)
    rows = [row(leaf, index, pixels) for index, leaf in enumerate(itertools.islice(itertools.cycle(things), count))]
    out = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows), out)
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / "train.parquet", out.getvalue())
    write_bytes(folder / "taxonomy.json", json.dumps(taxonomy()).encode())
