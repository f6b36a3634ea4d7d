"""Image formats: which files Pillow reads as pictures here, plug-ins included."""

from __future__ import annotations

import contextlib
import functools
import importlib

PICTURES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".avif",
    ".avifs", ".heic", ".heif", ".hif", ".jp2", ".j2k", ".jpx", ".pbm", ".pgm", ".ppm", ".pnm", ".tga",
)  # fmt: skip
"""Suffixes of photographs and drawings; what else Pillow opens (documents, icons, science data) is none."""


@functools.cache
def suffixes() -> frozenset[str]:
    """The suffixes among `PICTURES` that can be opened here; HEIC with `pillow-heif`, AVIF with Pillow 11.3 or newer.

    Registers the plug-in with Pillow, for this process.
    """
    from PIL import Image

    Image.init()
    with contextlib.suppress(ImportError):  # without the plug-in such files are no pictures, and said to be left out
        importlib.import_module("pillow_heif").register_heif_opener()
    known = Image.registered_extensions()
    return frozenset(suffix for suffix in PICTURES if known.get(suffix) in Image.OPEN)
