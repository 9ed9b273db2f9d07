"""Tags of a TIFF file: those that the pixels of its first page need.

TIFF 6.0 (Adobe 1992) and its technical notes; BigTIFF.
"""

from __future__ import annotations

import struct
from typing import IO, NamedTuple

from es_imgsearch.read.pixel_parts.parts import PixelParts, joined, read_at, size_of

BEGINNINGS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_NEEDED = {
    254, 255, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 292, 293, 317, 320, 322,
    323, 324, 325, 332, 338, 339, 347, 529, 530, 531, 532, 32997, 32998, 34675,
}  # fmt: skip
# What the first JPEG in TIFF says of itself; of no other compression.
_OLD_JPEG = {512, 513, 514, 515, 517, 518, 519, 520, 521}
_COMPRESSION, _OLD_JPEG_COMPRESSION = 259, 6
_MOST_ENTRIES = 65535


class _Layout(NamedTuple):
    """Sizes (bytes) and formats of a directory."""

    offset_at: int
    offset: str
    count: str
    entry_bytes: int


_CLASSIC = _Layout(4, "I", "H", 12)
_BIG = _Layout(8, "Q", "Q", 20)


def tiff_parts(file: IO[bytes]) -> PixelParts | None:
    """Reduce the first page of a TIFF to the tags that its pixels need."""
    head = read_at(file, 0, 16)
    order = "<" if head.startswith(b"II") else ">"
    layout = _BIG if b"+" in head[2:4] else _CLASSIC
    if len(head) < layout.offset_at + struct.calcsize(layout.offset):
        return None
    (at,) = struct.unpack_from(order + layout.offset, head, layout.offset_at)
    entries = _entries(file, at, order, layout)
    if not entries:
        return None
    end = size_of(file)
    padding = bytes(end % 2)
    count = struct.pack(order + layout.count, len(entries))
    none = struct.pack(order + layout.offset, 0)
    start = struct.pack(order + layout.offset, end + len(padding))
    rest = layout.offset_at + len(start)
    return PixelParts(
        joined(
            file,
            [
                head[: layout.offset_at] + start, (rest, end - rest),
                padding + count + b"".join(entries) + none,
            ],
        )
    )  # fmt: skip


def _entries(file: IO[bytes], at: int, order: str, layout: _Layout) -> list[bytes]:
    """Return the first entry of each needed tag, as it stands in the file."""
    count_bytes = struct.calcsize(layout.count)
    head = read_at(file, at, count_bytes)
    if len(head) < count_bytes:
        return []
    count = min(_MOST_ENTRIES, *struct.unpack(order + layout.count, head))
    content = read_at(file, at + count_bytes, count * layout.entry_bytes)
    found: dict[int, bytes] = {}
    for start in range(0, len(content) - layout.entry_bytes + 1, layout.entry_bytes):
        entry = content[start : start + layout.entry_bytes]
        found.setdefault(struct.unpack_from(order + "H", entry)[0], entry)
    value_at = layout.entry_bytes - struct.calcsize(layout.offset)
    compression = found.get(_COMPRESSION, bytes(layout.entry_bytes))
    is_old_jpeg = struct.unpack_from(order + "H", compression, value_at)[0] == _OLD_JPEG_COMPRESSION
    needed = _NEEDED | _OLD_JPEG if is_old_jpeg else _NEEDED
    return [found[tag] for tag in sorted(found.keys() & needed)]
