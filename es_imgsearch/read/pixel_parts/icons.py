"""Icons: PNG files inside ICO and ICNS are reduced to what their pixels need."""

from __future__ import annotations

import struct
from typing import IO

from es_imgsearch.read.pixel_parts.parts import PixelParts, joined, read_at, size_of
from es_imgsearch.read.pixel_parts.png import SIGNATURE as _PNG
from es_imgsearch.read.pixel_parts.png import png_parts

ICO = b"\0\0\1\0"
ICNS = b"icns"
_ENTRY_BYTES = 16
_MOST_ENTRIES = 256
_MOST_ENTRY_BYTES = 64 * 2**20


def ico_parts(file: IO[bytes]) -> PixelParts | None:
    """Rebuild an ICO of those entries that lie within the file; None without any."""
    end = size_of(file)
    count = int.from_bytes(read_at(file, 4, 2), "little")
    entries: list[tuple[bytes, bytes]] = []
    for number in range(min(count, _MOST_ENTRIES)):
        head = read_at(file, 6 + _ENTRY_BYTES * number, _ENTRY_BYTES)
        if len(head) < _ENTRY_BYTES:
            break
        length, start = struct.unpack_from("<II", head, 8)
        if length and start + length <= end:
            entries.append((head[:8], _reduced(file, start, length)))
    if not entries:
        return None
    at = 6 + _ENTRY_BYTES * len(entries)
    heads, contents = b"", b""
    for head, content in entries:
        heads += head + struct.pack("<II", len(content), at + len(contents))
        contents += content
    return PixelParts(joined(file, [ICO + struct.pack("<H", len(entries)) + heads + contents]))


def icns_parts(file: IO[bytes]) -> PixelParts | None:
    """Rebuild an ICNS of those elements that lie within the file; None without any."""
    end = size_of(file)
    at, elements = 8, b""
    for _ in range(_MOST_ENTRIES):
        head = read_at(file, at, 8)
        length = int.from_bytes(head[4:])
        if len(head) < 8 or length < 8 or at + length > end:
            break
        content = _reduced(file, at + 8, length - 8)
        elements += head[:4] + struct.pack(">I", 8 + len(content)) + content
        at += length
    if not elements:
        return None
    return PixelParts(joined(file, [ICNS + struct.pack(">I", 8 + len(elements)) + elements]))


def _reduced(file: IO[bytes], start: int, length: int) -> bytes:
    if read_at(file, start, len(_PNG)) == _PNG:
        parts = png_parts(file, start, length)
        if parts is not None:
            return parts.file.read()
    return read_at(file, start, min(length, _MOST_ENTRY_BYTES))
