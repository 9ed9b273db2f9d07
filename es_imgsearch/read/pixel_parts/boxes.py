"""Boxes of the ISO base media format: JPEG 2000, JPEG XL, HEIF and AVIF.

ISO/IEC 14496-12, 4.2.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import IO, NamedTuple

from es_imgsearch.read.pixel_parts.parts import MOST_SEARCHED_BYTES, Piece, good_units, read_at

_KIND = re.compile(rb"[ -~]{4}")
_MOST_CANDIDATES = 1000
_MOST_BOXES = 100_000


class Box(NamedTuple):
    """Kind and place of a box in a file (bytes); `end` may lie beyond its end."""

    kind: bytes
    start: int
    content: int
    end: int

    @property
    def whole(self) -> Piece:
        return self.start, self.end - self.start


def boxes(file: IO[bytes], start: int, end: int, needed: frozenset[bytes]) -> Iterator[Box]:
    """Return the boxes between two offsets, without others of a wrong length.

    After one of those the next box of a kind in `needed` is searched for.
    """
    return good_units(
        start,
        lambda at: _box_at(file, at, end),
        lambda box: box.kind in needed or _is_framed(file, box, end, needed),
        lambda at, _: _next_needed(file, at + 1, end, needed),
        most=_MOST_BOXES,
    )


def _box_at(file: IO[bytes], at: int, end: int) -> Box | None:
    head = read_at(file, at, min(16, end - at))
    if len(head) < 8 or not _KIND.fullmatch(head, 4, 8):
        return None
    size, kind, content = int.from_bytes(head[:4]), head[4:8], at + 8
    if size == 1:
        size, content = int.from_bytes(head[8:16]), at + 16
    box_end = at + size if size else end
    return Box(kind, at, content, box_end) if box_end >= content else None


def _is_framed(file: IO[bytes], box: Box, end: int, needed: frozenset[bytes]) -> bool:
    """Return True if another box, or the end, follows this one."""
    if box.end >= end:
        return box.end == end
    next_ = _box_at(file, box.end, end)
    return next_ is not None and (next_.kind in needed or next_.end <= end)


def _next_needed(file: IO[bytes], at: int, end: int, needed: frozenset[bytes]) -> int | None:
    content = read_at(file, at, min(end - at, MOST_SEARCHED_BYTES))
    for match in islice(re.finditer(b"|".join(sorted(needed)), content), _MOST_CANDIDATES):
        box = _box_at(file, at + match.start() - 4, end)
        if match.start() >= 4 and box is not None and box.end <= end:
            return box.start
    return None
