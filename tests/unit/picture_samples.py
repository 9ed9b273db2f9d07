"""Small pictures in every format, made when asked for."""

from __future__ import annotations

import io
import struct
import zlib
from functools import cache
from typing import Any

import numpy as np
import pillow_heif
from PIL import Image

pillow_heif.register_heif_opener()

RED, GREEN, BLUE, YELLOW = (230, 30, 30), (30, 180, 30), (30, 30, 220), (230, 220, 40)
SIZE = (64, 48)

# format as the documents name it: (Pillow's name, suffix, options of `save`)
WRITTEN: dict[str, tuple[str, str, dict[str, Any]]] = {
    "avif": ("AVIF", ".avif", {"quality": 90}),
    "bmp": ("BMP", ".bmp", {}),
    "dds": ("DDS", ".dds", {}),
    "dib": ("DIB", ".dib", {}),
    "gif": ("GIF", ".gif", {}),
    "heif": ("HEIF", ".heic", {"quality": 90}),
    "ico": ("ICO", ".ico", {"sizes": [SIZE]}),
    "jpeg": ("JPEG", ".jpg", {"quality": 95}),
    "jpeg2000": ("JPEG2000", ".jp2", {}),
    "pcx": ("PCX", ".pcx", {}),
    "png": ("PNG", ".png", {}),
    "ppm": ("PPM", ".ppm", {}),
    "qoi": ("QOI", ".qoi", {}),
    "sgi": ("SGI", ".sgi", {}),
    "tga": ("TGA", ".tga", {}),
    "tiff": ("TIFF", ".tif", {}),
    "webp": ("WEBP", ".webp", {"quality": 95}),
}


def four_corners(size: tuple[int, int] = SIZE) -> Image.Image:
    """Red, green / blue, yellow."""
    width, height = size
    image = Image.new("RGB", size, RED)
    image.paste(GREEN, (width // 2, 0, width, height))
    image.paste(BLUE, (0, height // 2, width // 2, height))
    image.paste(YELLOW, (width // 2, height // 2, width, height))
    return image


def corners(image: Image.Image) -> list[tuple[int, ...]]:
    """Colours of the middles of the four quarters, in reading order."""
    width, height = image.size
    return [
        image.getpixel((width * x // 4, height * y // 4))
        for y in (1, 3)
        for x in (1, 3)
    ]  # fmt: skip


def near(one: Any, other: Any, tolerance: float = 25) -> bool:
    return bool(np.abs(np.asarray(one, float) - np.asarray(other, float)).max() <= tolerance)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@cache
def sample(name: str) -> bytes:
    """The four corners in one of WRITTEN."""
    kind, _, options = WRITTEN[name]
    return saved(four_corners(), kind, **options)


@cache
def noisy(name: str) -> bytes:
    """Noise, so that no part of the file can be missing without being missed."""
    kind, _, options = WRITTEN[name]
    noise = np.random.default_rng(7).integers(0, 256, (*SIZE[::-1], 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    return saved(image.quantize(256) if kind == "GIF" else image, kind, **options)


def psd() -> bytes:
    """Pillow reads PSD and cannot write it: planes of raw bytes."""
    width, height = SIZE
    head = struct.pack(">4sH6xHIIHH", b"8BPS", 1, 3, height, width, 8, 3)
    planes = np.asarray(four_corners()).transpose(2, 0, 1).tobytes()
    return head + struct.pack(">IIIH", 0, 0, 0, 0) + planes


def xpm() -> bytes:
    rows = ["rg" * 0 + "r" * 4 + "g" * 4] * 3 + ["b" * 4 + "y" * 4] * 3
    colours = {"r": RED, "g": GREEN, "b": BLUE, "y": YELLOW}
    lines = [f'"8 6 {len(colours)} 1",']
    lines += [f'"{key} c #{r:02x}{g:02x}{b:02x}",' for key, (r, g, b) in colours.items()]
    lines += [f'"{row}",' for row in rows]
    return "\n".join(["/* XPM */", "static char *p[] = {", *lines, "};"]).encode()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour: int, pixels: bytes, *chunks: bytes) -> bytes:
    """A PNG of any header and (unfiltered, uncompressed) scan lines; chunks go before the data."""
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            head,
            *chunks,
            png_chunk(b"IDAT", zlib.compress(pixels)),
            png_chunk(b"IEND", b""),
        ]
    )


def exif_bytes(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()
