"""Picture bank: views of every concept, drawn once and kept as bytes, so that pre-training does not wait for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from data_prep.emoji.artwork import read_svg, render
from data_prep.emoji.facts import Concept
from data_prep.emoji.views import IMAGE_PX, view, view_rng

Pictures = np.ndarray[Any, np.dtype[np.uint8]]


def draw_views(
    concepts: Sequence[Concept], views: int, seed: int, split: str, progress: Callable[[int], object] | None = None
) -> Pictures:
    """Pictures (concepts, views, 56, 56, 3) in uint8. ``split`` keeps held-out streams apart from trained ones.

    Raises ``DataPrepError`` when the artwork or the renderer is missing.
    """
    bank = np.empty((len(concepts), views, IMAGE_PX, IMAGE_PX, 3), dtype=np.uint8)
    for row, concept in enumerate(concepts):
        drawing = render(read_svg(concept.fact))
        for number in range(views):
            bank[row, number] = np.asarray(view(drawing, view_rng(seed, split, concept.name, number)))
        if progress is not None:
            progress(1)
    return bank
