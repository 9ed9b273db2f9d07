"""PNG files whose ancillary chunks are broken in every way, and whose pixels are whole."""

from __future__ import annotations

import io
import struct
import zlib
from functools import cache

from PIL import Image

from tests.support import picture_samples as samples

# In the order of the PNG specification (third edition, 11.3), then what others write.
ANCILLARY = (
    b"cHRM", b"cICP", b"gAMA", b"iCCP", b"mDCV", b"cLLI", b"sBIT", b"sRGB", b"bKGD", b"hIST",
    b"tRNS", b"eXIf", b"pHYs", b"sPLT", b"tIME", b"iTXt", b"tEXt", b"zTXt", b"acTL", b"fcTL",
    b"fdAT", b"oFFs", b"pCAL", b"sCAL", b"sTER", b"gIFg", b"gIFx", b"dSIG", b"caBX", b"prVt",
    b"vpAg", b"mkBF", b"iDOT", b"orNT",
)  # fmt: skip
SIGNATURE_BYTES = 8


def clean(mode: str = "RGB") -> bytes:
    """Noise, so that no pixel can be another unseen."""
    image = Image.open(io.BytesIO(samples.noisy("png")))
    return samples.saved(image.quantize(64) if mode == "P" else image.convert(mode), "PNG")


def chunks_of(content: bytes) -> list[bytes]:
    """Split a good PNG into its chunks, each with length and check sum."""
    found, at = [], SIGNATURE_BYTES
    while at < len(content):
        length = struct.unpack_from(">I", content, at)[0]
        found.append(content[at : at + 12 + length])
        at += 12 + length
    return found


def split_data(content: bytes, parts: int = 3) -> list[bytes]:
    """The chunks, with the image data in several."""
    found = []
    for chunk in chunks_of(content):
        if chunk[4:8] != b"IDAT":
            found.append(chunk)
            continue
        data = chunk[8:-4]
        size = len(data) // parts + 1
        found += [
            samples.png_chunk(b"IDAT", data[at : at + size]) for at in range(0, len(data), size)
        ]
    return found


def with_chunks(content: bytes, place: str, *chunks: bytes) -> bytes:
    """Put chunks in a place: after_header, before_data, between_data, after_data, after_end."""
    parts = split_data(content)
    first = next(n for n, each in enumerate(parts) if each[4:8] == b"IDAT")
    at = {
        "before_header": 0,
        "after_header": 1,
        "before_data": first,
        "between_data": first + 1,
        "after_data": len(parts) - 1,
        "after_end": len(parts),
    }[place]
    return content[:SIGNATURE_BYTES] + b"".join([*parts[:at], *chunks, *parts[at:]])


PLACES = ("after_header", "before_data", "between_data", "after_data", "after_end")


def wrong_sum(kind: bytes, data: bytes) -> bytes:
    chunk = samples.png_chunk(kind, data)
    return chunk[:-4] + struct.pack(">I", zlib.crc32(kind + data) ^ 1)


def wrong_length(kind: bytes, data: bytes, more: int) -> bytes:
    """A chunk that says it is `more` bytes longer (or shorter) than it is."""
    chunk = samples.png_chunk(kind, data)
    return struct.pack(">I", (len(data) + more) & 0xFFFFFFFF) + chunk[4:]


@cache
def bomb(size_bytes: int) -> bytes:
    """Zeros, compressed by about 1,000 to 1: of 4 GB, 4 MB."""
    packer = zlib.compressobj(9)
    first = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    # A block after a full flush refers to nothing before it, so that it may be repeated.
    return first + block * ((size_bytes >> 20) - 1)
