"""Items of a HEIF or AVIF file: metadata is declared to be free space.

ISO/IEC 23008-12 (HEIF) and 14496-12, 8.11 (meta boxes).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, NamedTuple

from es_imgsearch.read.pixel_parts.boxes import Box, boxes
from es_imgsearch.read.pixel_parts.parts import Piece, PixelParts, joined, read_at, size_of

_EXIF, _XMP = b"Exif", b"mime"
_FREE = b"free"
_META = frozenset({b"meta"})
# Without the first meta box, and what it points to, there are no pixels.
_TOP = {b"ftyp", b"mdat", b"moov", b"moof", b"idat"}
_VERSION_BYTES = 4
_MOST_ITEMS = 65535


def begins_like_heif(prefix: bytes) -> bool:
    return prefix[4:8] == b"ftyp"


def heif_parts(file: IO[bytes]) -> Iterator[PixelParts]:
    """Yield the file without its XMP, without its EXIF, and without both."""
    end = size_of(file)
    meta, others = None, {}
    for box in boxes(file, 0, end, _META):
        if box.kind in _META and meta is None:
            meta = box
        elif box.kind not in _TOP:
            others[box.start + 4] = _FREE
            # What is said to be longer than the file would be taken for a cut file.
            end = box.start if box.end > end else end
    if meta is None:
        return
    items = list(_items(file, meta))
    for kinds in ({_XMP}, {_EXIF}, {_XMP, _EXIF}):
        left_out = {item.number for item in items if item.kind in kinds}
        changes = others | {item.at: _FREE for item in items if item.kind in kinds}
        changes |= _locations(file, meta, left_out)
        yield PixelParts(joined(file, _with_changes(changes, end)))


class _Item(NamedTuple):
    number: int
    kind: bytes
    at: int  # where its kind is written


def _parts_of(file: IO[bytes], meta: Box, kind: bytes) -> Iterator[Box]:
    end = min(meta.end, size_of(file))
    start = meta.content + _VERSION_BYTES
    return (each for each in boxes(file, start, end, frozenset({kind})) if each.kind == kind)


def _items(file: IO[bytes], meta: Box) -> Iterator[_Item]:
    for infos in _parts_of(file, meta, b"iinf"):
        version = read_at(file, infos.content, 1)
        start = infos.content + _VERSION_BYTES + (2 if version == b"\0" else 4)
        for info in boxes(file, start, min(infos.end, meta.end), frozenset({b"infe"})):
            # Version 2 has item numbers of 2 bytes, version 3 of 4; then 2 bytes of protection.
            width = 4 if read_at(file, info.content, 1) == b"\3" else 2
            at = info.content + _VERSION_BYTES
            number = int.from_bytes(read_at(file, at, width))
            yield _Item(number, read_at(file, at + width + 2, 4), at + width + 2)


def _locations(file: IO[bytes], meta: Box, items: set[int]) -> dict[int, bytes]:
    """Return changes by which these items lie at the file's beginning, one byte long."""
    changes: dict[int, bytes] = {}
    for box in _parts_of(file, meta, b"iloc"):
        head = read_at(file, box.content, _VERSION_BYTES + 2)
        if len(head) < _VERSION_BYTES + 2:
            continue
        version, sizes = head[0], head[4:]
        offset, length, base, index = (n for size in sizes for n in (size >> 4, size & 15))
        index = index if version else 0
        wide = 4 if version > 1 else 2
        at = box.content + _VERSION_BYTES + 2
        count = int.from_bytes(read_at(file, at, wide))
        at += wide
        for _ in range(min(count, _MOST_ITEMS)):
            number = int.from_bytes(read_at(file, at, wide))
            at += wide + (2 if version else 0) + 2
            if number in items and base:
                changes[at] = bytes(base)
            extents = int.from_bytes(read_at(file, at + base, 2))
            at += base + 2
            if number in items:
                one = (
                    bytes(index + offset) + (1).to_bytes(length)
                    if length
                    else bytes(index + offset)
                )
                changes[at] = one * extents
            at += extents * (index + offset + length)
    return changes


def _with_changes(changes: dict[int, bytes], end: int) -> list[Piece]:
    """Return the pieces of a file with other bytes written in some places."""
    pieces: list[Piece] = []
    at = 0
    for place, content in sorted(changes.items()):
        if at <= place and place + len(content) <= end:
            pieces += [(at, place - at), content]
            at = place + len(content)
    return [*pieces, (at, end - at)]
