"""Items of a HEIF or AVIF file: metadata is declared to be free space.

ISO/IEC 23008-12 (HEIF) and 14496-12, 8.11 (meta boxes).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

from es_imgsearch.read.pixel_parts.boxes import Box, boxes
from es_imgsearch.read.pixel_parts.parts import Piece, PixelParts, joined, read_at, size_of

_EXIF, _XMP = b"Exif", b"mime"
_FREE = b"free"
_META = frozenset({b"meta"})
# Without the first meta box, and what it points to, there are no pixels.
_TOP = {b"ftyp", b"mdat", b"moov", b"moof", b"idat"}
_VERSION_BYTES = 4


def begins_like_heif(prefix: bytes) -> bool:
    return prefix[4:8] == b"ftyp"


def heif_parts(file: IO[bytes]) -> Iterator[PixelParts]:
    """Yield the file without its XMP, without its EXIF, and without both."""
    meta, others = None, []
    for box in boxes(file, 0, size_of(file), _META):
        if box.kind in _META and meta is None:
            meta = box
        elif box.kind not in _TOP:
            others.append(box.start + 4)
    if meta is None:
        return
    by_kind: dict[bytes, list[int]] = {_XMP: [], _EXIF: []}
    for kind, at in _items(file, meta):
        by_kind.get(kind, []).append(at)
    for kinds in ((_XMP,), (_EXIF,), (_XMP, _EXIF)):
        places = {place for kind in kinds for place in by_kind[kind]}
        yield PixelParts(joined(file, _with_free(file, sorted({*places, *others}))))


def _items(file: IO[bytes], meta: Box) -> Iterator[tuple[bytes, int]]:
    """Yield each item's kind, and where that is written."""
    end = min(meta.end, size_of(file))
    for infos in boxes(file, meta.content + _VERSION_BYTES, end, frozenset({b"iinf"})):
        if infos.kind != b"iinf":
            continue
        version = read_at(file, infos.content, 1)
        start = infos.content + _VERSION_BYTES + (2 if version == b"\0" else 4)
        for info in boxes(file, start, min(infos.end, end), frozenset({b"infe"})):
            # Version 2 has item numbers of 2 bytes, version 3 of 4; then 2 bytes of protection.
            wide = read_at(file, info.content, 1) == b"\3"
            at = info.content + _VERSION_BYTES + (6 if wide else 4)
            yield read_at(file, at, 4), at


def _with_free(file: IO[bytes], places: list[int]) -> list[Piece]:
    """Return the pieces of the file with other kinds written in these places."""
    pieces: list[Piece] = []
    at = 0
    for place in places:
        pieces += [(at, place - at), _FREE]
        at = place + len(_FREE)
    return [*pieces, (at, size_of(file) - at)]
