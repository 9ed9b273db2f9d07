"""Tags of a TIFF file: those that the pixels of its first page need.

TIFF 6.0 (Adobe 1992) and its technical notes; BigTIFF.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO

from es_imgsearch.read.pixel_parts.parts import Piece, PixelParts, joined, read_at, size_of

BEGINNINGS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_NEEDED = {
    254, 255, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 292, 293, 317, 320, 322,
    323, 324, 325, 332, 338, 339, 347, 529, 530, 531, 532, 32997, 32998, 34675,
}  # fmt: skip
# What the first JPEG in TIFF says of itself; of no other compression.
_OLD_JPEG = {512, 513, 514, 515, 517, 518, 519, 520, 521}
_COMPRESSION, _OLD_JPEG_COMPRESSION = 259, 6
_MOST_ENTRIES = 65535


@dataclass(frozen=True, slots=True)
class _Layout:
    """Sizes (bytes) and formats of a directory."""

    offset_at: int
    offset: str
    count: str
    entry_bytes: int
    value_at: int


_CLASSIC = _Layout(4, "I", "H", 12, 8)
_BIG = _Layout(8, "Q", "Q", 20, 12)


# Bytes of a value, by its type.
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}


@dataclass(frozen=True, slots=True)
class Directory:
    """First directory of a TIFF: the first entry of each tag, as it is stored."""

    start: int
    order: str
    layout: _Layout
    entries: Mapping[int, bytes]

    def value(self, file: IO[bytes], tag: int, most_bytes: int) -> bytes:
        """Return the bytes of a tag's value; none if it is missing, malformed or too long."""
        entry = self.entries.get(tag)
        if entry is None:
            return b""
        kind, count = struct.unpack_from(f"{self.order}H{self.layout.offset}", entry, 2)
        length = _TYPE_BYTES.get(kind, 0) * count
        if length <= len(entry) - self.layout.value_at:
            return entry[self.layout.value_at :][:length]
        (start,) = struct.unpack_from(self.order + self.layout.offset, entry, self.layout.value_at)
        return read_at(file, start, length) if length <= most_bytes else b""


def first_directory(file: IO[bytes]) -> Directory | None:
    """Read the first directory; None for a file that has none."""
    head = read_at(file, 0, 16)
    order = "<" if head.startswith(b"II") else ">"
    layout = _BIG if b"+" in head[2:4] else _CLASSIC
    if len(head) < layout.offset_at + struct.calcsize(layout.offset):
        return None
    (at,) = struct.unpack_from(order + layout.offset, head, layout.offset_at)
    count_bytes = struct.calcsize(layout.count)
    count = read_at(file, at, count_bytes)
    if len(count) < count_bytes:
        return None
    most_bytes = (
        min(_MOST_ENTRIES, *struct.unpack(order + layout.count, count)) * layout.entry_bytes
    )
    content = read_at(file, at + count_bytes, most_bytes)
    entries: dict[int, bytes] = {}
    for start in range(0, len(content) - layout.entry_bytes + 1, layout.entry_bytes):
        entry = content[start : start + layout.entry_bytes]
        entries.setdefault(struct.unpack_from(order + "H", entry)[0], entry)
    return Directory(at, order, layout, entries) if entries else None


def tiff_parts(file: IO[bytes]) -> PixelParts | None:
    """Reduce the first page of a TIFF to the tags that its pixels need."""
    directory = first_directory(file)
    if directory is None:
        return None
    order, layout, entries = directory.order, directory.layout, directory.entries
    compression = directory.value(file, _COMPRESSION, 2)
    is_old_jpeg = compression == struct.pack(order + "H", _OLD_JPEG_COMPRESSION)
    tags = sorted(entries.keys() & (_NEEDED | _OLD_JPEG if is_old_jpeg else _NEEDED))
    # Written where the directory stands, which is longer: nothing is moved, and what is missing
    # at the end of the file stays missing.
    count = struct.pack(order + layout.count, len(tags))
    none = struct.pack(order + layout.offset, 0)
    content = count + b"".join(entries[tag] for tag in tags) + none
    rest = directory.start + len(content)
    pieces: list[Piece] = [(0, directory.start), content, (rest, size_of(file) - rest)]
    return PixelParts(joined(file, pieces))
