"""Image formats: which files Pillow reads as pictures here, plug-ins included, and what to do about the others."""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Mapping

PICTURES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".avif",
    ".avifs", ".heic", ".heif", ".hif", ".jp2", ".j2k", ".jpx", ".pbm", ".pgm", ".ppm", ".pnm", ".tga",
)  # fmt: skip
"""Suffixes of photographs and drawings; what else Pillow opens (documents, icons, science data) is none."""

_CONVERT = "convert it to JPEG or PNG"
_HEIC = f"{_CONVERT}, or `pip install pillow-heif`"
_AVIF = f"{_CONVERT}, or `pip install 'pillow>=11.3'`"
_REMEDIES: Mapping[str, tuple[str, str]] = {
    **dict.fromkeys((".heic", ".heif", ".hif"), ("HEIC", _HEIC)),
    **dict.fromkeys((".avif", ".avifs"), ("AVIF", _AVIF)),
    ".jxl": ("JPEG XL", _CONVERT),
    ".svg": ("SVG", _CONVERT),
    **dict.fromkeys((".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2"), ("camera's raw", _CONVERT)),
}
"""By suffix of pictures that Pillow does not read everywhere: the format, and what to do."""
_BRANDS: Mapping[bytes, str] = {
    **dict.fromkeys((b"avif", b"avis"), ".avif"),
    **dict.fromkeys(
        (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1"), ".heic"
    ),
}
"""Major brands of the files that hold such pictures (ISO/IEC 23008-12)."""


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


def why_unread(suffix: str) -> str | None:
    """Why a picture cannot be read here, and the remedy, by its suffix in small letters; None for other files."""
    if suffix not in _REMEDIES or suffix in suffixes():
        return None
    name, remedy = _REMEDIES[suffix]
    return f"a {name} picture, which Pillow does not read here; {remedy}"


def suffix_of(data: bytes) -> str | None:
    """The suffix that a file of one of those formats should have, by its first bytes; None for all others."""
    if data[4:8] == b"ftyp":
        return _BRANDS.get(data[8:12])
    if data.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL ")):
        return ".jxl"
    return ".svg" if b"<svg" in data[:1000] else None
