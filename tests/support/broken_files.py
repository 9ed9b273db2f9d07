"""Files of every format whose metadata is broken, and whose pixels are whole."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from functools import cache
from typing import Any

from PIL import Image

from tests.support import picture_samples as samples

JUNK = (
    b"", b"\0", b"\0\0\0", bytes(range(60)), b"Exif\0\0", b"II*\0\xff\xff\xff\xff",
    bytes((7 * n * n + 3 * n) % 251 for n in range(300)),
)  # fmt: skip


@cache
def noise(mode: str = "RGB") -> Image.Image:
    image = Image.open(io.BytesIO(samples.noisy("png")))
    return image.quantize(200) if mode == "P" else image.convert(mode)


def saved(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    return samples.saved(noise(mode), kind, **options)


# -- JPEG ----------------------------------------------------------------------------------

# What Pillow looks for in application segments and comments, by marker.
JPEG_HEADS = {
    0xE0: (b"JFIF\0", b"JFXX\0"),
    0xE1: (
        b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0",
    ),
    0xE2: (b"ICC_PROFILE\0", b"ICC_PROFILE\0\1\1", b"MPF\0", b"MPF\0II*\0\x08\0\0\0", b"FPXR\0"),
    0xEC: (b"Ducky",),
    0xED: (b"Photoshop 3.0\0", b"Photoshop 3.0\x008BIM", b"Photoshop 3.0\x008BIM\4\4\0\0\xff"),
    0xEE: (b"Adobe",),
    0xFE: (b"",),
}  # fmt: skip
JPEG_MARKERS = (*range(0xE0, 0xF0), 0xFE)


def segment(marker: int, data: bytes, more: int = 0) -> bytes:
    """A segment that says it is `more` bytes longer than it is."""
    return bytes([0xFF, marker]) + struct.pack(">H", (len(data) + 2 + more) & 0xFFFF) + data


def jpeg_places(content: bytes) -> dict[str, int]:
    """Offsets between the segments of a good JPEG."""
    frame = next(at for at in (content.find(b"\xff\xc0"), content.find(b"\xff\xc2")) if at > 0)
    return {
        "after_start": 2,
        "before_tables": content.index(b"\xff\xdb"),
        "before_frame": frame,
        "before_scan": content.index(b"\xff\xda"),
        "after_end": len(content),
    }


# -- WebP and GIF --------------------------------------------------------------------------


def riff(*chunks: tuple[bytes, bytes, int]) -> bytes:
    """Chunks of kind, data and how much longer than it is each says it is."""
    body = b"WEBP" + b"".join(
        kind + struct.pack("<I", (len(data) + more) & 0xFFFFFFFF) + data + bytes(len(data) % 2)
        for kind, data, more in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


def riff_chunks(content: bytes) -> list[tuple[bytes, bytes, int]]:
    found, at = [], 12
    while at < len(content):
        length = struct.unpack_from("<I", content, at + 4)[0]
        found.append((content[at : at + 4], content[at + 8 : at + 8 + length], 0))
        at += 8 + length + length % 2
    return found


def extensions(label: int, data: bytes) -> Iterator[tuple[str, bytes]]:
    """A GIF's extension, good and with every kind of damage."""
    head = bytes([0x21, label])
    yield "good", head + (bytes([len(data)]) + data if data else b"") + b"\0"
    yield "unended", head + (bytes([len(data)]) + data if data else b"")
    yield "too long", head + bytes([len(data) + 9]) + data + b"\0"
    yield "too short", head + bytes([max(1, len(data) // 2)]) + data + b"\0"
    yield "cut", head
    yield "garbage", data + b"\x99"


# -- TIFF ----------------------------------------------------------------------------------


def tiff_with(content: bytes, tag: int, kind: int, count: int, value: int) -> bytes:
    """A TIFF with one more entry in its directory, of any kind, count and value."""
    order = "<" if content.startswith(b"II") else ">"
    at = struct.unpack_from(f"{order}I", content, 4)[0]
    number = struct.unpack_from(f"{order}H", content, at)[0]
    entries = [content[at + 2 + 12 * n : at + 14 + 12 * n] for n in range(number)]
    entries = [each for each in entries if struct.unpack_from(f"{order}H", each)[0] != tag]
    entries.append(struct.pack(f"{order}HHII", tag, kind, count, value))
    entries.sort(key=lambda each: struct.unpack_from(f"{order}H", each)[0])
    start = len(content) + len(content) % 2
    head = content[:4] + struct.pack(f"{order}I", start) + content[8:] + bytes(len(content) % 2)
    return head + struct.pack(f"{order}H", len(entries)) + b"".join(entries) + bytes(4)


# -- boxes ---------------------------------------------------------------------------------


def box(kind: bytes, data: bytes, more: int = 0) -> bytes:
    return struct.pack(">I", (8 + len(data) + more) & 0xFFFFFFFF) + kind + data


def boxes(content: bytes) -> list[bytes]:
    found, at = [], 0
    while at < len(content):
        length = struct.unpack_from(">I", content, at)[0] or len(content) - at
        found.append(content[at : at + length])
        at += length
    return found
