"""Chunks of a PNG: those that its pixels need, and metadata.

PNG specification (third edition, W3C 2025).  As libpng does, and so every browser, an ancillary
chunk that is damaged, misplaced or repeated is passed over.  Further than libpng goes, a chunk
whose length is wrong costs itself only: the next good chunk is searched for.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import IO, Any

from es_imgsearch.read.pixel_parts.parts import (
    MOST_SEARCHED_BYTES,
    Piece,
    PixelParts,
    good_units,
    joined,
    read_at,
    size_of,
)
from es_imgsearch.read.pixel_parts.photoshop import image_resources

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_FRAME_BYTES = 12  # length, kind and check sum
_KIND = re.compile(rb"[A-Za-z]{4}")
_FOUND_AGAIN = re.compile(rb"IDAT|PLTE|tRNS|IEND")

# A damaged chunk is searched past at so many places.
_MOST_CANDIDATES = 64
# A picture of 250 megapixels in chunks of 8 kB has 125,000.
_MOST_CHUNKS = 250_000

# Profiles of printers have 0.5 to 3 MB; what is longer when it is unpacked is left packed.
_MOST_PROFILE_BYTES = 16 * 2**20
_MOST_TEXT_BYTES = 4 * 2**20

_PALETTE_COLOUR = 3
# Lengths of tRNS by colour type: grey, RGB, palette.
_TRANSPARENCY_BYTES = {0: range(2, 3), 2: range(6, 7), _PALETTE_COLOUR: range(1, 257)}

_XMP_KEYWORD = b"XML:com.adobe.xmp"
# ImageMagick writes metadata as hexadecimal text.
_RAW_PROFILE = b"Raw profile type "
_EXIF_PREFIX = b"Exif\0\0"


@dataclass(frozen=True, slots=True)
class _Chunk:
    kind: bytes
    start: int  # of its length
    length: int  # of its data

    @property
    def end(self) -> int:
        return self.start + _FRAME_BYTES + self.length

    @property
    def whole(self) -> Piece:
        return self.start, self.end - self.start


@dataclass(slots=True)
class _Found:
    header: _Chunk | None = None
    colour: int = 0
    palette: _Chunk | None = None
    transparency: _Chunk | None = None
    data: list[_Chunk] = field(default_factory=list)
    info: dict[str, Any] = field(default_factory=dict)


def png_parts(file: IO[bytes], start: int = 0, size: int | None = None) -> PixelParts | None:
    """Reduce a PNG to header, palette, transparency and data.

    None without header or data.  `start` and `size` say where it stands in the file.
    """
    end = size_of(file) if size is None else min(start + size, size_of(file))
    found = _Found()
    for chunk in _chunks(file, start + len(SIGNATURE), end):
        if not _take(file, chunk, found):
            break
    if found.header is None or not found.data:
        return None
    needed = [found.header, found.palette, found.transparency, *found.data]
    pieces: list[Piece] = [SIGNATURE, *(each.whole for each in needed if each is not None)]
    if found.data[-1].end <= end:
        # (Where data is cut off, nothing may follow: it would be read as data.)
        pieces.append(struct.pack(">I4sI", 0, b"IEND", zlib.crc32(b"IEND")))
    return PixelParts(joined(file, pieces), found.info)


def _chunks(file: IO[bytes], start: int, end: int) -> Iterator[_Chunk]:
    """Return the chunks up to the end of the file, without those of a wrong length."""
    return good_units(
        start,
        lambda at: _chunk_at(file, at),
        # Where data is cut off it is passed on, so that the decoder says so.
        lambda chunk: chunk.kind == b"IDAT" or _is_framed(file, chunk, end),
        lambda at, chunk: _next_good(file, at if chunk is None else at + 8, end),
        most=_MOST_CHUNKS,
    )


def _chunk_at(file: IO[bytes], at: int) -> _Chunk | None:
    head = read_at(file, at, 8)
    if len(head) < 8 or not _KIND.fullmatch(head, 4):
        return None
    length = int.from_bytes(head[:4])
    return _Chunk(head[4:], at, length) if length < 2**31 else None


def _is_framed(file: IO[bytes], chunk: _Chunk, end: int) -> bool:
    """Return True if another chunk, or the end of the file, follows this one."""
    if chunk.kind == b"IEND":
        return True
    next_ = _chunk_at(file, chunk.end)
    if next_ is not None and (next_.kind == b"IDAT" or next_.end <= end):
        return True
    # What follows may be something else; then its own check sum speaks for a chunk.
    return chunk.end <= end and chunk.length <= MOST_SEARCHED_BYTES and _is_good(file, chunk)


def _is_good(file: IO[bytes], chunk: _Chunk) -> bool:
    content = read_at(file, chunk.start + 4, chunk.length + 8)
    return len(content) == chunk.length + 8 and zlib.crc32(content[:-4]) == int.from_bytes(
        content[-4:]
    )


def _next_good(file: IO[bytes], at: int, end: int) -> int | None:
    """Return where the next chunk that matters begins; its check sum is right."""
    content = read_at(file, at, min(end - at, MOST_SEARCHED_BYTES))
    for match in islice(_FOUND_AGAIN.finditer(content), _MOST_CANDIDATES):
        chunk = _chunk_at(file, at + match.start() - 4)
        if chunk is not None and chunk.end <= end and _is_good(file, chunk):
            return chunk.start
    return None


def _take(file: IO[bytes], chunk: _Chunk, found: _Found) -> bool:
    """Keep a chunk, or what it says; return False where the picture ends."""
    kind = chunk.kind
    if kind == b"IHDR":
        if found.header is None:
            found.header = chunk
            found.colour = (read_at(file, chunk.start + 17, 1) or b"\0")[0]
    elif kind == b"IDAT":
        found.data.append(chunk)
    elif kind == b"IEND":
        return False
    elif kind == b"PLTE":
        if found.colour == _PALETTE_COLOUR and found.palette is None:
            found.palette = chunk
    elif kind == b"tRNS":
        if _is_transparency(chunk, found) and _is_good(file, chunk):
            found.transparency = chunk
    elif kind[:1].islower():
        _take_metadata(file, chunk, found)
    else:
        # A critical chunk that nobody knows, or whose kind is damaged: data, maybe.
        return not found.data or _is_good(file, chunk)
    return True


def _is_transparency(chunk: _Chunk, found: _Found) -> bool:
    is_placed = not found.data and (found.colour != _PALETTE_COLOUR or found.palette is not None)
    lengths = _TRANSPARENCY_BYTES.get(found.colour, range(0))
    return is_placed and found.transparency is None and chunk.length in lengths


# -- Metadata ------------------------------------------------------------------------------


def _take_metadata(file: IO[bytes], chunk: _Chunk, found: _Found) -> None:
    """Read a profile (only before the data), EXIF or XMP; the first of each counts."""
    if chunk.kind not in _READERS or chunk.length > _MOST_PROFILE_BYTES:
        return
    if chunk.kind == b"iCCP" and found.data:
        return
    if not _is_good(file, chunk):
        return
    content = read_at(file, chunk.start + 8, chunk.length)
    for name, value in _READERS[chunk.kind](content).items():
        found.info.setdefault(name, value)


def _profile(content: bytes) -> dict[str, Any]:
    name, _, packed = content.partition(b"\0")
    profile = _unpacked(packed[1:], _MOST_PROFILE_BYTES) if packed[:1] == b"\0" else None
    return {"icc_profile": profile} if name and profile else {}


def _exif(content: bytes) -> dict[str, Any]:
    return {"exif": _EXIF_PREFIX + content} if content else {}


def _international_text(content: bytes) -> dict[str, Any]:
    keyword, _, rest = content.partition(b"\0")
    if keyword != _XMP_KEYWORD or len(rest) < 2:
        return {}
    parts = rest[2:].split(b"\0", 2)
    if len(parts) < 3:
        return {}
    text = parts[2] if not rest[0] else _unpacked(parts[2], _MOST_TEXT_BYTES)
    return {"xmp": text} if text else {}


def _text(content: bytes) -> dict[str, Any]:
    keyword, _, text = content.partition(b"\0")
    return _raw_profile(keyword, text)


def _packed_text(content: bytes) -> dict[str, Any]:
    keyword, _, packed = content.partition(b"\0")
    if not keyword.startswith(_RAW_PROFILE) or packed[:1] != b"\0":
        return {}
    return _raw_profile(keyword, _unpacked(packed[1:], _MOST_TEXT_BYTES) or b"")


def _raw_profile(keyword: bytes, text: bytes) -> dict[str, Any]:
    """Decode ImageMagick's profiles: a line feed, the kind, the length, hexadecimal."""
    if not keyword.startswith(_RAW_PROFILE):
        return {}
    lines = text.split(b"\n", 3)
    try:
        content = bytes.fromhex(lines[3].decode("ascii")) if len(lines) > 3 else b""
    except ValueError:
        return {}
    kind = keyword.removeprefix(_RAW_PROFILE)
    if not content:
        return {}
    if kind == b"exif":
        return {"exif": content}
    if kind == b"xmp":
        return {"xmp": content}
    return {"photoshop": image_resources(content)} if kind in {b"iptc", b"8bim"} else {}


def _unpacked(packed: bytes, most_bytes: int) -> bytes | None:
    """Inflate; None for damaged data, and for more than `most_bytes`."""
    inflater = zlib.decompressobj()
    try:
        content = inflater.decompress(packed, most_bytes)
    except zlib.error:
        return None
    return content if inflater.eof else None


_READERS = {
    b"iCCP": _profile,
    b"eXIf": _exif,
    b"iTXt": _international_text,
    b"tEXt": _text,
    b"zTXt": _packed_text,
}
