"""Chunks of a WebP: those that its pixels need, and metadata.

WebP Container Specification (RFC 9649).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from itertools import islice
from typing import IO, Any, NamedTuple

from es_imgsearch.read.pixel_parts.parts import (
    MOST_SEARCHED_BYTES,
    Piece,
    PixelParts,
    good_units,
    joined,
    read_at,
    size_of,
)

_HEAD_BYTES = 12
_FEATURES = b"VP8X"
_NEEDED = (b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF")
_PICTURES = {b"VP8 ", b"VP8L", b"ANMF"}
_METADATA = {b"ICCP": "icc_profile", b"EXIF": "exif", b"XMP ": "xmp"}
_KIND = re.compile(rb"[A-Z][A-Z0-9]{2}[A-Z0-9 ]")
_FOUND_AGAIN = re.compile(rb"VP8 |VP8L|VP8X|ALPH|ANIM|ANMF")
# Flags of transparency and of an animation; the others announce metadata.
_PIXEL_FLAGS = 0x12

_MOST_CANDIDATES = 1000
_MOST_CHUNKS = 100_000
_MOST_METADATA_BYTES = 16 * 2**20


def begins_like_webp(prefix: bytes) -> bool:
    return prefix.startswith(b"RIFF") and prefix[8:12] == b"WEBP"


class _Chunk(NamedTuple):
    kind: bytes
    start: int  # of its kind
    length: int  # of its data

    @property
    def end(self) -> int:
        return self.start + 8 + self.length + self.length % 2


def webp_parts(file: IO[bytes]) -> PixelParts | None:
    """Reduce a WebP to its features and pictures; None if one is cut off or missing."""
    end = size_of(file)
    pieces: list[Piece] = []
    features: bytes | None = None
    info: dict[str, Any] = {}
    kinds = set()
    for chunk in _chunks(file, end):
        if chunk.kind == _FEATURES and features is None and chunk.length >= 10:
            features = read_at(file, chunk.start + 8, 10)
        elif chunk.kind in _NEEDED:
            if chunk.start + 8 + chunk.length > end:
                return None
            kinds.add(chunk.kind)
            pieces.append((chunk.start, 8 + chunk.length))
            pieces.append(bytes(chunk.length % 2))
        elif (name := _METADATA.get(chunk.kind)) and 0 < chunk.length <= _MOST_METADATA_BYTES:
            info.setdefault(name, read_at(file, chunk.start + 8, chunk.length))
    if not kinds & _PICTURES:
        return None
    if features is not None:
        flags = bytes([features[0] & _PIXEL_FLAGS])
        pieces.insert(0, struct.pack("<4sI", _FEATURES, 10) + flags + features[1:])
    size = 4 + sum(len(each) if isinstance(each, bytes) else each[1] for each in pieces)
    return PixelParts(joined(file, [struct.pack("<4sI4s", b"RIFF", size, b"WEBP"), *pieces]), info)


def _chunks(file: IO[bytes], end: int) -> Iterator[_Chunk]:
    return good_units(
        _HEAD_BYTES,
        lambda at: _chunk_at(file, at),
        lambda chunk: chunk.kind in {*_NEEDED, _FEATURES} or _is_framed(file, chunk, end),
        lambda at, chunk: _next_needed(file, at if chunk is None else at + 8, end),
        most=_MOST_CHUNKS,
    )


def _chunk_at(file: IO[bytes], at: int) -> _Chunk | None:
    head = read_at(file, at, 8)
    if len(head) < 8 or not _KIND.fullmatch(head, 0, 4):
        return None
    return _Chunk(head[:4], at, int.from_bytes(head[4:], "little"))


def _is_framed(file: IO[bytes], chunk: _Chunk, end: int) -> bool:
    """Return True if another chunk, or the end of the file, follows this one."""
    next_ = _chunk_at(file, chunk.end)
    return chunk.end == end or (next_ is not None and next_.end <= end + 1)


def _next_needed(file: IO[bytes], at: int, end: int) -> int | None:
    content = read_at(file, at, MOST_SEARCHED_BYTES)
    for match in islice(_FOUND_AGAIN.finditer(content), _MOST_CANDIDATES):
        chunk = _chunk_at(file, at + match.start())
        if chunk is not None and chunk.start + 8 + chunk.length <= end:
            return chunk.start
    return None
