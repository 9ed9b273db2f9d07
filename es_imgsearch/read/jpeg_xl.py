"""Read JPEG XL (ISO/IEC 18181): a bare stream, or one in a container of boxes.

The library is imported when the first such file is met.
"""

from __future__ import annotations

import io
from typing import IO

import numpy as np
from PIL import Image

from es_imgsearch.errors import ReadError
from es_imgsearch.read.pixel_parts.boxes import boxes
from es_imgsearch.read.rare_formats import check_size, image_of

_STREAM = b"\xff\x0a"
_CONTAINER = b"\0\0\0\x0cJXL \r\n\x87\n"
# A stream, or parts of one: each begins with its number of four bytes.
_WHOLE, _PART = b"jxlc", b"jxlp"
_NEEDED = frozenset({_WHOLE, _PART})
_NUMBER_BYTES = 4
_LAST = 0x80000000

_COMPRESSED = b"brob"
_EXIF, _XMP = b"Exif", b"xml "
_EXIF_OFFSET_BYTES = 4
_MOST_METADATA_BYTES = 4 * 2**20


def begins_like_jxl(prefix: bytes, suffix: str) -> bool:
    """Return True for JPEG XL; the two bytes of a bare stream need its name."""
    return prefix.startswith(_CONTAINER) or (suffix == ".jxl" and prefix.startswith(_STREAM))


def jxl_picture(file: IO[bytes], max_pixels: int) -> tuple[Image.Image, Image.Exif]:
    """Return the first frame, upright despite its EXIF orientation, and the EXIF.

    `image.info` holds its XMP packet (`xmp`, bytes), if it has one.
    """
    import imagecodecs

    file.seek(0)
    content = file.read()
    stream, metadata = _unpacked(content) if content.startswith(_CONTAINER) else (content, {})
    check_size(*_size(stream[:16]), max_pixels)
    try:
        values = imagecodecs.jpegxl_decode(stream, index=0, numthreads=1)
    except imagecodecs.JpegxlError as error:
        if "NEED_MORE_INPUT" in str(error):
            raise ReadError("truncated", "The JPEG XL file ends too early.") from error
        raise
    values = values if values.ndim == 3 else values[..., np.newaxis]
    exif = Image.Exif()
    try:
        exif.load(metadata.get(_EXIF, b"")[_EXIF_OFFSET_BYTES:])
    except Exception:  # noqa: BLE001 - malformed EXIF raises anything; the pixels are good
        exif = Image.Exif()
    samples = values.shape[-1]
    image = image_of(values, 3 if samples > 2 else 1, has_alpha=samples in {2, 4})
    if xmp := metadata.get(_XMP):
        image.info["xmp"] = xmp
    return image, exif


def _unpacked(content: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    """Return the stream in a container, and its metadata: the first of each kind."""
    whole = b""
    parts: dict[int, bytes] = {}
    metadata: dict[bytes, bytes] = {}
    for box in boxes(io.BytesIO(content), len(_CONTAINER), len(content), _NEEDED):
        data = content[box.content : box.end]
        if box.kind == _WHOLE:
            whole = whole or data
        elif box.kind == _PART:
            number = int.from_bytes(data[:_NUMBER_BYTES]) & ~_LAST
            parts.setdefault(number, data[_NUMBER_BYTES:])
        elif box.kind in {_EXIF, _XMP}:
            metadata.setdefault(box.kind, data)
        elif box.kind == _COMPRESSED and data[:4] in {_EXIF, _XMP}:
            metadata.setdefault(data[:4], _decompressed(data[4:]))
    return whole or b"".join(parts[number] for number in sorted(parts)), metadata


def _decompressed(data: bytes) -> bytes:
    """Decompress a box; nothing for a damaged one, and for what gets too long."""
    import imagecodecs

    try:
        return bytes(imagecodecs.brotli_decode(data, out=_MOST_METADATA_BYTES))
    except imagecodecs.BrotliError:
        return b""


def _size(stream: bytes) -> tuple[int, int]:
    """Read width and height from a stream's header (ISO/IEC 18181-1, D.2)."""
    if not stream.startswith(_STREAM) or len(stream) < 12:
        raise ReadError("truncated", "The JPEG XL file ends in its header.")
    left = int.from_bytes(stream[2:], "little")

    def bits(number: int) -> int:
        nonlocal left
        value, left = left & ((1 << number) - 1), left >> number
        return value

    is_small = bits(1)

    def side() -> int:
        return 8 * (bits(5) + 1) if is_small else bits((9, 13, 18, 30)[bits(2)]) + 1

    height = side()
    ratio = bits(3)
    if ratio == 0:
        return side(), height
    above, below = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[ratio - 1]
    return height * above // below, height
