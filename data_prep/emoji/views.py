"""Views of a drawing: on light grey ground, with a small rotation, scale and shift."""

from __future__ import annotations

import io
import random

from PIL import Image

IMAGE_PX = 56
"""Side of every view: 4 x 4 patches of 14 px, which Qwen2.5-VL merges into four visual tokens."""
_GREY = (215, 255)
_SIDE_PX = (48, IMAGE_PX)
_DEGREES = 8.0


def view(drawing: Image.Image, rng: random.Random) -> Image.Image:
    """A ``IMAGE_PX`` x ``IMAGE_PX`` RGB view of a square RGBA drawing; all chance comes from ``rng``."""
    grey = rng.randint(*_GREY)
    side = rng.randint(*_SIDE_PX)
    turned = drawing.rotate(rng.uniform(-_DEGREES, _DEGREES), resample=Image.Resampling.BILINEAR)
    small = turned.resize((side, side), resample=Image.Resampling.BILINEAR)
    left, top = rng.randint(0, IMAGE_PX - side), rng.randint(0, IMAGE_PX - side)
    ground = Image.new("RGB", (IMAGE_PX, IMAGE_PX), (grey, grey, grey))
    ground.paste(small, (left, top), small)
    return ground


def view_rng(seed: int, split: str, name: str, number: int) -> random.Random:
    """The random stream of one view: independent of every other view and of the order of work."""
    return random.Random(f"{seed}/{split}/{name}/{number}")


def to_png(picture: Image.Image) -> bytes:
    """PNG bytes without metadata."""
    out = io.BytesIO()
    picture.save(out, format="PNG", optimize=False)
    return out.getvalue()
