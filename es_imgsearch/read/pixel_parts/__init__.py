"""Reduce a picture file to the parts that its pixels need.

What else a file holds (metadata, previews, comments) may be damaged: it costs itself only.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

from es_imgsearch.read.pixel_parts import gif, icons, jpeg, photoshop, png, tiff
from es_imgsearch.read.pixel_parts.heif import begins_like_heif, heif_parts
from es_imgsearch.read.pixel_parts.jpeg2000 import begins_like_jpeg2000, jpeg2000_parts
from es_imgsearch.read.pixel_parts.parts import PixelParts
from es_imgsearch.read.pixel_parts.webp import begins_like_webp, webp_parts

__all__ = ["PixelParts", "parts_at_once", "parts_of_refused"]


def parts_at_once(file: IO[bytes], prefix: bytes) -> PixelParts | None:
    """Reduce a file before a decoder sees it; None if it may see all.

    Of PNG and GIF always: Pillow refuses a file for any damaged chunk or block, and takes some
    for pixels.  Of PSD, too: Pillow does not give what is written in its resources.  `prefix` is
    the file's first 16 bytes.
    """
    if prefix.startswith(png.SIGNATURE):
        return png.png_parts(file)
    if prefix.startswith(gif.SIGNATURES):
        return gif.gif_parts(file)
    if prefix.startswith(photoshop.SIGNATURE):
        return photoshop.psd_parts(file)
    if prefix.startswith(jpeg.SIGNATURE) and jpeg.is_misframed(file):
        return jpeg.jpeg_parts(file)
    return None


def parts_of_refused(file: IO[bytes], prefix: bytes) -> Iterator[PixelParts]:
    """Yield what is left of a file that a decoder refused, to be tried in turn."""
    if begins_like_heif(prefix):
        yield from heif_parts(file)
        return
    parts = None
    if prefix.startswith(jpeg.SIGNATURE):
        parts = jpeg.jpeg_parts(file)
    elif prefix.startswith(tiff.BEGINNINGS):
        parts = tiff.tiff_parts(file)
    elif prefix.startswith(icons.ICO):
        parts = icons.ico_parts(file)
    elif prefix.startswith(icons.ICNS):
        parts = icons.icns_parts(file)
    elif begins_like_webp(prefix):
        parts = webp_parts(file)
    elif begins_like_jpeg2000(prefix):
        parts = jpeg2000_parts(file)
    if parts is not None:
        yield parts
