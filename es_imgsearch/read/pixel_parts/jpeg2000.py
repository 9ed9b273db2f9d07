"""Boxes and markers of a JPEG 2000 file: those that its pixels need.

ITU-T T.800, annexes A and I.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from itertools import islice
from typing import IO

from es_imgsearch.read.pixel_parts.boxes import boxes
from es_imgsearch.read.pixel_parts.parts import (
    MOST_SEARCHES,
    Piece,
    PixelParts,
    joined,
    read_at,
    size_of,
)

_BOXED = b"\0\0\0\x0cjP  \r\n\x87\n"
_STREAM = b"\xff\x4f\xff\x51"
_FILE_TYPE = b"\0\0\0\x14ftypjp2 \0\0\0\0jp2 "
_TOP = frozenset({b"jp2h", b"jp2c"})
_HEADERS = frozenset({b"ihdr", b"bpcc", b"colr", b"pclr", b"cmap", b"cdef"})
_MOST_HEADER_BYTES = 2**20

_FIRST_TILE = 0x90
# Comment, places of the components, lengths of tiles and packets.
_NOT_NEEDED = {0x64, 0x63, 0x55, 0x57}
_MAIN_HEADER = _NOT_NEEDED | {0x50, 0x51, 0x52, 0x53, 0x59, 0x5C, 0x5D, 0x5E, 0x5F, 0x60}
_MARKER = re.compile(rb"\xff[\x50-\x60\x90]")
_MOST_SEGMENTS = 20_000


def begins_like_jpeg2000(prefix: bytes) -> bool:
    return prefix.startswith((_BOXED, _STREAM))


def jpeg2000_parts(file: IO[bytes]) -> PixelParts | None:
    """Reduce a JPEG 2000 to what its colours and pixels need; None without pixels."""
    end = size_of(file)
    if read_at(file, 0, 4) == _STREAM:
        return PixelParts(joined(file, _stream(file, 0, end)))
    header: list[Piece] = []
    stream: list[Piece] = []
    for box in boxes(file, len(_BOXED), end, _TOP):
        if box.kind == b"jp2h" and not header:
            found = boxes(file, box.content, min(end, box.end), _HEADERS)
            # The first of each kind counts: a second colour specification is for other readers.
            whole = [each for each in found if each.end <= end]
            firsts = {each.kind: each.whole for each in reversed(whole)}
            header = [firsts[kind] for kind in reversed(firsts) if kind in _HEADERS]
        elif box.kind == b"jp2c" and not stream:
            stream = _stream(file, box.content, min(end, box.end))
    if not header or not stream:
        return None
    size = 8 + sum(piece[1] for piece in header if isinstance(piece, tuple))
    return PixelParts(
        joined(
            file,
            [
                _BOXED + _FILE_TYPE + struct.pack(">I4s", size, b"jp2h"), *header,
                struct.pack(">I4s", 0, b"jp2c"), *stream,
            ],
        )
    )  # fmt: skip


def _stream(file: IO[bytes], start: int, end: int) -> list[Piece]:
    """Return the pieces of a code stream, without what its main header need not say."""
    pieces: list[Piece] = [(start, 2)]
    at = start + 2
    for marker, place, length in _segments(file, at, end):
        at = place + length
        if marker not in _NOT_NEEDED:
            pieces.append((place, length))
    return [*pieces, (at, end - at)]


def _segments(file: IO[bytes], at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield marker, offset and length of each segment of the main header."""
    searches = 0
    for _ in range(_MOST_SEGMENTS):
        head = read_at(file, at, 4)
        if len(head) < 4 or head[0] != 0xFF or head[1] == _FIRST_TILE:
            return
        length = 2 + int.from_bytes(head[2:])
        if head[1] not in _NOT_NEEDED or _leads_to_tile(file, at + length):
            yield head[1], at, length
            at += length
            continue
        searches += 1
        next_ = _next_segment(file, at + 4, end)
        if next_ is None or searches > MOST_SEARCHES:
            return
        # What was passed belongs to the segment of a wrong length.
        yield head[1], at, next_ - at
        at = next_


def _leads_to_tile(file: IO[bytes], at: int) -> bool:
    for _ in range(_MOST_SEGMENTS):
        head = read_at(file, at, 4)
        if len(head) < 4 or head[0] != 0xFF:
            return False
        if head[1] == _FIRST_TILE:
            return head[2:] == b"\0\x0a"
        if head[1] not in _MAIN_HEADER:
            return False
        at += 2 + int.from_bytes(head[2:])
    return False


def _next_segment(file: IO[bytes], at: int, end: int) -> int | None:
    content = read_at(file, at, min(end - at, _MOST_HEADER_BYTES))
    starts = (at + match.start() for match in islice(_MARKER.finditer(content), 1000))
    return next((start for start in starts if _leads_to_tile(file, start)), None)
