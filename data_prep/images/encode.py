"""Encoding of images for training: RGB, upright, one frame, 8 bits, in a compressed file.

A JPEG or PNG that is all this already stays byte for byte. Everything else is decoded and encoded again.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from dataclasses import dataclass

from PIL import Image, ImageOps

from data_prep.readers.formats import suffix_of, suffixes, why_unread
from speciarl.errors import DataPrepError

LONGEST_ASPECT = 200
"""Qwen2.5-VL's image processor refuses images longer than this many times their width; veRL then drops the row."""
_ORIENTATION = 0x0112
_UPRIGHT = (None, 0, 1)
_LYING = (5, 6, 7, 8)
"""Values of the tag that swap width and height."""
_LOSSY = ("JPEG", "MPO", "WEBP", "AVIF")
_PNG_DEPTH_AT = 24
"""Byte offset of the bit depth in a PNG: signature (8), length and name of IHDR (8), width and height (8)."""
_FAULTS = (
    *(OSError, EOFError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, RuntimeError),
    *(struct.error, zlib.error, Image.DecompressionBombError),
)
"""What Pillow's decoders raise for damaged files; each has its own habits (found by damaging files at random)."""


class BrokenImageError(DataPrepError):
    """The bytes cannot be decoded to an image."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """An image file ready for a row."""

    data: bytes
    width: int
    height: int
    change: str | None
    """Why it was encoded again, e.g. ``CMYK``; None when the bytes are the original ones."""


def encode(data: bytes, max_pixels: int | None = None, jpeg_quality: int = 92) -> Encoded:
    """The image file as training can read it; the original bytes where they are that already.

    Args:
        data: the file in any format that Pillow reads.
        max_pixels: larger images are scaled down to at most this many pixels and become JPEG.
        jpeg_quality: 1 to 95, for images that have to be encoded.

    Raises BrokenImageError for bytes that cannot be decoded to the end, and for images beyond LONGEST_ASPECT.
    """
    suffixes()  # registers plug-ins
    try:
        with Image.open(io.BytesIO(data)) as image:
            shown = _encode(image, data, max_pixels, jpeg_quality)
    except BrokenImageError:
        raise
    except _FAULTS as error:
        raise BrokenImageError(_reason(error, data)) from error
    if max(shown.width, shown.height) >= LONGEST_ASPECT * min(shown.width, shown.height):
        size = f"{shown.width} x {shown.height}"
        raise BrokenImageError(
            f"is {size} pixels: too long for the image processor (1:{LONGEST_ASPECT}); cut or drop it"
        )
    return shown


def pixels(data: bytes) -> bytes:
    """Size (two big-endian uint32) and upright RGB pixels of the decoded image. Raises BrokenImageError."""
    shown = upright(data)
    return struct.pack(">II", *shown.size) + shown.tobytes()


def upright(data: bytes) -> Image.Image:
    """The decoded, upright RGB image, as a model is shown it. Raises BrokenImageError."""
    suffixes()  # registers plug-ins
    try:
        with Image.open(io.BytesIO(data)) as image:
            if _unfit(image, data) is None:  # as rows of a build are: no copies needed
                image.load()
                return image
            return _rgb(image)
    except _FAULTS as error:
        raise BrokenImageError(_reason(error, data)) from error


def _reason(error: BaseException, data: bytes) -> str:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    if "cannot identify image file" not in text:  # Pillow names the object in memory, which tells nobody anything
        return text
    unread = why_unread(suffix_of(data) or "")
    return f"is {unread}" if unread else "is no image in a known format"


def _encode(image: Image.Image, data: bytes, max_pixels: int | None, jpeg_quality: int) -> Encoded:
    change = _unfit(image, data)
    too_large = max_pixels is not None and image.width * image.height > max_pixels
    if change is None and not too_large:
        size = image.size
        # Decoding at an eighth reads a JPEG to its end, which is what tells a truncated one, at a third of the cost.
        image.draft("RGB", (1, 1))
        image.load()
        return Encoded(data, *size, None)
    lossy = image.format in _LOSSY
    if too_large and max_pixels is not None:
        shown = _shrunk(image, max_pixels)
        return Encoded(
            _jpeg(shown, jpeg_quality, fine_colour=not lossy), *shown.size, "max_pixels" if change is None else change
        )
    shown = _rgb(image)
    jpeg = _jpeg(shown, jpeg_quality, fine_colour=not lossy)
    # A lossless original stays lossless, unless that takes more than a JPEG and, of a PNG or GIF, than the original.
    if not lossy:
        png = _png(shown)
        if len(png) <= max(len(jpeg), len(data) if image.format in ("PNG", "GIF") else 0):
            return Encoded(png, *shown.size, change)
    return Encoded(jpeg, *shown.size, change)


def _unfit(image: Image.Image, data: bytes) -> str | None:
    """Why the file cannot stay as it is; None when it can."""
    if getattr(image, "n_frames", 1) > 1:
        return "several frames"
    if image.format not in ("JPEG", "PNG"):
        return f"format {image.format}"
    if image.mode != "RGB":
        return f"mode {image.mode}"
    if image.format == "PNG" and data[_PNG_DEPTH_AT] == 16:
        return "16 bits"
    if "transparency" in image.info:
        return "transparency"
    if image.getexif().get(_ORIENTATION) not in _UPRIGHT:
        return "EXIF rotation"
    return None


def _rgb(image: Image.Image) -> Image.Image:
    """Decoded, upright, RGB, on white where it is transparent; the first frame of several."""
    turned = ImageOps.exif_transpose(image)
    # Pillow's own conversion from 16 bits would clip instead of scale; older versions call them I in a PNG.
    if turned.mode.startswith("I;16") or (turned.mode == "I" and image.format == "PNG"):
        return turned.convert("I").point(lambda value: value / 256).convert("L").convert("RGB")
    if turned.mode in ("I", "F"):
        raise BrokenImageError(f"has pixels of mode {turned.mode}, whose range nobody states; convert it to 8 bits")
    if turned.has_transparency_data:
        ground = Image.new("RGBA", turned.size, "white")
        return Image.alpha_composite(ground, turned.convert("RGBA")).convert("RGB")
    return turned.convert("RGB")


def _shrunk(image: Image.Image, max_pixels: int) -> Image.Image:
    scale = math.sqrt(max_pixels / (image.width * image.height))
    target = (max(1, int(image.width * scale)), max(1, int(image.height * scale)))
    # A JPEG can be decoded at a half, a quarter or an eighth; twice the target leaves the resampling enough to work on.
    image.draft(None, (2 * target[0], 2 * target[1]))
    if image.getexif().get(_ORIENTATION) in _LYING:
        target = (target[1], target[0])
    return _rgb(image).resize(target, Image.Resampling.LANCZOS)


def _jpeg(image: Image.Image, quality: int, fine_colour: bool) -> bytes:
    """`fine_colour`: keep colour at full resolution, which only a lossless original has to lose."""
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality, subsampling=0 if fine_colour else 2)
    return out.getvalue()


def _png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()
