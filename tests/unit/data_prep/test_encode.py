"""Images: what is fit stays byte for byte, everything else becomes upright RGB without growing out of proportion."""

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from data_prep.images.encode import BrokenImageError, Encoded, encode, pixels

LEFT, RIGHT = (200, 30, 30), (30, 30, 200)


def picture(width: int = 64, height: int = 48) -> Image.Image:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", (width, height), LEFT)
    image.paste(RIGHT, (width // 2, 0, width, height))
    return image


def noise(width: int = 200, height: int = 150) -> Image.Image:
    """Like a photograph to a compressor: smooth and never flat."""
    values = np.random.default_rng(0).integers(0, 256, (height // 10, width // 10, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((width, height), Image.Resampling.BICUBIC)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def shown(encoded: Encoded) -> Image.Image:
    image = Image.open(io.BytesIO(encoded.data))
    assert image.mode == "RGB"
    assert image.format in ("JPEG", "PNG")
    assert image.size == (encoded.width, encoded.height)
    assert getattr(image, "n_frames", 1) == 1
    assert image.getexif().get(0x0112) in (None, 1)
    image.load()
    return image


def near(found: Any, wanted: tuple[int, ...]) -> bool:
    return all(abs(a - b) < 12 for a, b in zip(found, wanted, strict=True))


def rotated(degrees_tag: int) -> dict[str, Any]:
    exif = Image.Exif()
    exif[0x0112] = degrees_tag
    return {"exif": exif}


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"quality": 70}),
        ("JPEG", {"progressive": True}),
        ("JPEG", {"subsampling": 0}),
        ("JPEG", rotated(1)),
        ("PNG", {}),
    ],
)
def test_what_is_fit_stays_byte_for_byte(kind: str, options: dict[str, Any]) -> None:
    data = saved(noise(), kind, **options)
    encoded = encode(data)
    assert (encoded.data, encoded.change) == (data, None)
    assert (encoded.width, encoded.height) == (200, 150)


GREY_16 = Image.fromarray(np.tile(np.array([0x2000, 0xE000], dtype=np.uint16), (16, 16)))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("mode CMYK", saved(picture().convert("CMYK"), "JPEG", quality=95)),
        ("mode L", saved(picture().convert("L"), "JPEG", quality=95)),
        ("mode P", saved(picture().convert("P"), "PNG")),
        ("mode RGBA", saved(picture().convert("RGBA"), "PNG")),
        ("mode LA", saved(picture().convert("LA"), "PNG")),
        ("mode 1", saved(picture().convert("1"), "PNG")),
        ("format WEBP", saved(picture(), "WEBP")),
        ("format BMP", saved(picture(), "BMP")),
        ("format TIFF", saved(picture(), "TIFF")),
        ("format GIF", saved(picture(), "GIF")),
        ("several frames", saved(picture(), "GIF", save_all=True, append_images=[picture().rotate(90)])),
        ("several frames", saved(picture(), "WEBP", save_all=True, append_images=[picture().rotate(90)])),
        ("transparency", saved(picture(), "PNG", transparency=(1, 2, 3))),
        ("EXIF rotation", saved(picture(), "JPEG", **rotated(3))),
        ("EXIF rotation", saved(picture(), "PNG", **rotated(6))),
    ],
)
def test_everything_else_becomes_rgb(name: str, data: bytes) -> None:
    encoded = encode(data)
    assert encoded.change == name
    shown(encoded)


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    image = shown(encode(saved(GREY_16, "PNG")))
    assert near(image.getpixel((0, 0)), (0x20,) * 3)
    assert near(image.getpixel((1, 0)), (0xE0,) * 3)


def test_sixteen_bits_of_colour_are_seen_though_pillow_hides_them() -> None:
    plain = saved(picture(4, 4), "PNG")
    assert encode(plain[:24] + b"\x08" + plain[25:]).change is None
    # A PNG of 16 bits per channel by hand: Pillow reads such files, but writes none.
    import struct
    import zlib

    row = b"\x00" + struct.pack(">3H", 0xC800, 0x1E00, 0x1E00) * 4
    chunks = [(b"IHDR", struct.pack(">2I5B", 4, 4, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(row * 4)), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    encoded = encode(data)
    assert encoded.change == "16 bits"
    assert near(shown(encoded).getpixel((1, 1)), LEFT)


def test_rotation_is_carried_out() -> None:
    image = shown(encode(saved(picture(64, 48), "JPEG", quality=95, **rotated(6))))
    assert image.size == (48, 64)
    assert near(image.getpixel((24, 5)), LEFT)
    assert near(image.getpixel((24, 60)), RIGHT)


def test_transparency_shows_white() -> None:
    image = picture().convert("RGBA")
    image.putalpha(0)
    assert near(shown(encode(saved(image, "PNG"))).getpixel((3, 3)), (255, 255, 255))


def test_colours_of_cmyk_survive() -> None:
    image = shown(encode(saved(Image.new("RGB", (32, 32), (250, 250, 250)).convert("CMYK"), "JPEG", quality=95)))
    assert near(image.getpixel((9, 9)), (250, 250, 250))


def test_photographs_do_not_blow_up_to_png() -> None:
    for data in (saved(noise(), "BMP"), saved(noise(), "TIFF"), saved(noise(), "WEBP", quality=90)):
        encoded = encode(data)
        assert shown(encoded).format == "JPEG"
        assert len(encoded.data) < len(saved(noise(), "PNG")) / 2


def test_drawings_stay_lossless() -> None:
    encoded = encode(saved(picture().convert("P", palette=Image.Palette.ADAPTIVE), "GIF"))
    image = shown(encoded)
    assert image.format == "PNG"
    assert image.getpixel((3, 3)) == LEFT


@given(st.integers(1, 300), st.integers(1, 300), st.integers(800, 20_000))
@settings(max_examples=40)
def test_max_pixels_is_an_upper_bound_and_keeps_the_shape(width: int, height: int, most: int) -> None:
    assume(max(width, height) < 100 * min(width, height))  # longer ones are refused, also after they were scaled
    data = saved(Image.new("RGB", (width, height), LEFT), "JPEG")
    encoded = encode(data, max_pixels=most)
    if width * height <= most:
        assert encoded.data == data
        return
    assert encoded.change == "max_pixels"
    image = shown(encoded)
    assert image.width * image.height <= most
    scale = (most / (width * height)) ** 0.5
    assert abs(image.width - width * scale) <= 1
    assert abs(image.height - height * scale) <= 1


def test_max_pixels_of_a_rotated_image() -> None:
    image = shown(encode(saved(picture(640, 480), "JPEG", **rotated(6)), max_pixels=1200))
    assert (image.width, image.height) == (30, 40)
    assert near(image.getpixel((15, 5)), LEFT)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("kept", [0, 7, 200, 0.5, 0.98])
def test_truncated_files_are_broken(kind: str, kept: float) -> None:
    data = saved(noise(), kind)
    with pytest.raises(BrokenImageError):
        encode(data[: int(kept * len(data)) if isinstance(kept, float) else kept])


def test_other_bytes_are_broken() -> None:
    with pytest.raises(BrokenImageError, match="no image in a known format"):
        encode(b"<html>404</html>")
    damaged = bytearray(saved(noise(), "PNG"))
    damaged[len(damaged) // 2] ^= 255
    with pytest.raises(BrokenImageError):
        encode(bytes(damaged))


KINDS = ("JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP", "PPM", "TGA")
ORIGINALS = [saved(noise(60, 40), kind) for kind in KINDS] + [saved(noise(60, 40), "JPEG", **rotated(6))]


@given(st.sampled_from(ORIGINALS), st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6))
@settings(max_examples=150, derandomize=True)  # a search on every run would be a test of Pillow
def test_damage_of_any_kind_is_a_broken_image_or_none(original: bytes, changes: list[tuple[int, int]]) -> None:
    data = bytearray(original)
    for place, value in changes:
        data[place % len(data)] = value
    try:
        encoded = encode(bytes(data), max_pixels=10_000)
    except BrokenImageError as error:
        message = str(error)
    else:
        shown(encoded)
        message = "none"
    assert message
    assert "\n" not in message


def test_pixels_without_a_range_are_refused() -> None:
    with pytest.raises(BrokenImageError, match="mode F"):
        encode(saved(picture().convert("F"), "TIFF"))


def test_pixels_are_equal_for_equal_pictures_only() -> None:
    png = saved(noise(), "PNG")
    assert pixels(png) == pixels(saved(noise(), "BMP")) == pixels(saved(noise(), "PNG", compress_level=1))
    assert pixels(png) != pixels(saved(noise().transpose(Image.Transpose.FLIP_LEFT_RIGHT), "PNG"))
    tall, wide = (saved(Image.new("RGB", size), "PNG") for size in ((4, 9), (9, 4)))
    assert pixels(tall) != pixels(wide)
    with pytest.raises(BrokenImageError):
        pixels(png[:90])
