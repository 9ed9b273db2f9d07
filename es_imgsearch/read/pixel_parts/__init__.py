"""Reduce a picture file to the parts that its pixels need.

What else a file holds (metadata, previews, comments) may be damaged: it costs itself only.
"""

from __future__ import annotations

from typing import IO

from es_imgsearch.read.pixel_parts.gif import SIGNATURES as _GIF
from es_imgsearch.read.pixel_parts.gif import gif_parts
from es_imgsearch.read.pixel_parts.jpeg import SIGNATURE as _JPEG
from es_imgsearch.read.pixel_parts.jpeg import is_misframed, jpeg_parts
from es_imgsearch.read.pixel_parts.parts import PixelParts
from es_imgsearch.read.pixel_parts.png import SIGNATURE as _PNG
from es_imgsearch.read.pixel_parts.png import png_parts
from es_imgsearch.read.pixel_parts.webp import begins_like_webp, webp_parts

__all__ = ["PixelParts", "parts_at_once", "parts_of_refused"]


def parts_at_once(file: IO[bytes], prefix: bytes) -> PixelParts | None:
    """Reduce a file before a decoder sees it; None if it may see all.

    Of PNG and GIF always: Pillow refuses a file for any damaged chunk or block, and takes some
    for pixels.
    `prefix` is the file's first 16 bytes.
    """
    if prefix.startswith(_PNG):
        return png_parts(file)
    if prefix.startswith(_JPEG) and is_misframed(file):
        return jpeg_parts(file)
    if prefix.startswith(_GIF):
        return gif_parts(file)
    return None


def parts_of_refused(file: IO[bytes], prefix: bytes) -> PixelParts | None:
    """Reduce a file that a decoder refused; None where that would change nothing."""
    if prefix.startswith(_JPEG):
        return jpeg_parts(file)
    if begins_like_webp(prefix):
        return webp_parts(file)
    return None
