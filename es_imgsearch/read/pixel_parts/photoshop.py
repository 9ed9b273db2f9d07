"""Photoshop's files and the resources in them: IPTC data, XMP, EXIF, profiles.

Adobe Photoshop File Formats Specification (2019).
"""

from __future__ import annotations

from typing import IO

from es_imgsearch.read.pixel_parts.parts import Piece, PixelParts, joined, read_at, size_of

SIGNATURE = b"8BPS"
_HEADER_BYTES = 26
_MOST_BYTES = 64 * 2**20
_SIGNATURES = (b"8BIM", b"PHUT", b"DCSR", b"AgHg", b"MeSa")

_NUMBERS = {"icc_profile": 0x040F, "exif": 0x0422, "xmp": 0x0424}


def image_resources(content: bytes) -> dict[int, bytes]:
    """Return each resource's data by its number, up to a malformed one."""
    found: dict[int, bytes] = {}
    at = 0
    while content[at : at + 4] in _SIGNATURES and at + 7 <= len(content):
        number = int.from_bytes(content[at + 4 : at + 6])
        # A name begins with its length, and both take an even number of bytes.
        at += 6 + (content[at + 6] + 2) // 2 * 2
        size = int.from_bytes(content[at : at + 4])
        if at + 4 + size > len(content):
            break
        found.setdefault(number, content[at + 4 : at + 4 + size])
        at += 4 + (size + 1) // 2 * 2
    return found


def psd_parts(file: IO[bytes]) -> PixelParts | None:
    """Reduce a PSD to header, palette and the flat picture; None if it ends earlier."""
    at, sections = _HEADER_BYTES, []
    for _ in range(3):
        length = read_at(file, at, 4)
        if len(length) < 4:
            return None
        sections.append((at + 4, int.from_bytes(length)))
        at += 4 + int.from_bytes(length)
    (start, palette), resources, _ = sections
    end = size_of(file)
    if at >= end:
        return None
    found = image_resources(read_at(file, resources[0], min(resources[1], _MOST_BYTES)))
    info = {name: found[number] for name, number in _NUMBERS.items() if number in found}
    pieces: list[Piece] = [(0, start + palette), bytes(8), (at, end - at)]
    return PixelParts(joined(file, pieces), {**info, "photoshop": found})
