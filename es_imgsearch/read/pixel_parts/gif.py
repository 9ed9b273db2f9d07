"""Blocks of a GIF file: those that the pixels of its first picture need.

GIF89a specification (CompuServe 1990).
"""

from __future__ import annotations

import re
from itertools import islice
from typing import IO, Any

from es_imgsearch.read.pixel_parts.parts import (
    MOST_SEARCHED_BYTES,
    Piece,
    PixelParts,
    joined,
    read_at,
    size_of,
)

SIGNATURES = (b"GIF87a", b"GIF89a")
_SCREEN_BYTES = 13
_PICTURE, _EXTENSION, _END = b",", b"!", b";"
_KNOWN_LABELS = {0x01, 0xF9, 0xFE, 0xFF}
_PICTURE_BYTES = 10
# An XMP packet stands in no sub-blocks; a trailer ends them, wherever its bytes lead.
_XMP = b"!\xff\x0bXMP DataXMP"
_XMP_TRAILER_BYTES = 258
_MOST_XMP_BYTES = 4 * 2**20
_CODE_SIZES = range(1, 12)  # bits

_MOST_CANDIDATES = 100_000
_MOST_BLOCKS = 100_000
_MOST_SUB_BLOCKS = 300_000  # of 255 bytes: 76 MB
_MOST_TRIED = 16


def gif_parts(file: IO[bytes]) -> PixelParts | None:
    """Reduce a GIF to its screen, colours and pictures; None without a picture."""
    start = _blocks_start(file)
    control, info, at = _walk(file, start)
    if not _is_in_screen(file, at) and (found := _search(file, start)) is not None:
        at = found
    if not _is_picture(file, at):
        return None
    # (A damaged extension may have swallowed it.)
    control = _control_in(read_at(file, at - 8, 8)) or control
    pieces: list[Piece] = [(0, start)]
    if control is not None:
        pieces.append(b"!\xf9\x04" + control + b"\0")
    pieces.append((at, size_of(file) - at))
    return PixelParts(joined(file, pieces), info)


def _blocks_start(file: IO[bytes]) -> int:
    return _SCREEN_BYTES + _palette_bytes(read_at(file, 10, 1))


def _palette_bytes(flags: bytes) -> int:
    return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 0x80 else 0


def _walk(file: IO[bytes], at: int) -> tuple[bytes | None, dict[str, Any], int]:
    """Pass extensions; return the last control, XMP, and where they end."""
    control = None
    info: dict[str, Any] = {}
    for _ in range(_MOST_BLOCKS):
        head = read_at(file, at, 8)
        if head[:1] != _EXTENSION or len(head) < 3:
            break
        control = _control_in(head) or control
        end = _end_of_blocks(file, at + 2)
        if end is None:
            break
        start = at + len(_XMP)
        length = end - start - _XMP_TRAILER_BYTES
        if 0 < length <= _MOST_XMP_BYTES and read_at(file, at, len(_XMP)) == _XMP:
            info["xmp"] = read_at(file, start, length)
        at = end
    return control, info, at


def _end_of_blocks(file: IO[bytes], at: int) -> int | None:
    """Return where a chain of sub-blocks ends; None if the file ends earlier."""
    for _ in range(_MOST_SUB_BLOCKS):
        length = read_at(file, at, 1)
        if not length:
            return None
        at += 1 + length[0]
        if not length[0]:
            return at
    return None


def _is_picture(file: IO[bytes], at: int) -> bool:
    """Return True if a picture's descriptor stands here."""
    head = read_at(file, at, _PICTURE_BYTES)
    if len(head) < _PICTURE_BYTES or head[:1] != _PICTURE:
        return False
    code_size = read_at(file, at + _PICTURE_BYTES + _palette_bytes(head[9:10]), 1)
    return bool(code_size) and code_size[0] in _CODE_SIZES


def _is_in_screen(file: IO[bytes], at: int) -> bool:
    """Return True if a picture stands here that fits the screen (some do not)."""
    return _fits(read_at(file, at, _PICTURE_BYTES), read_at(file, 6, 4)) and _is_picture(file, at)


def _search(file: IO[bytes], start: int) -> int | None:
    """Search for the first picture within the screen whose data is whole."""
    screen, tried = read_at(file, 6, 4), 0
    content = read_at(file, start, MOST_SEARCHED_BYTES)
    for match in islice(re.finditer(_PICTURE, content), _MOST_CANDIDATES):
        head = content[match.start() : match.start() + _PICTURE_BYTES]
        at = start + match.start()
        if not _fits(head, screen) or not _is_picture(file, at):
            continue
        tried += 1
        if tried > _MOST_TRIED:
            return None
        data = at + _PICTURE_BYTES + _palette_bytes(head[9:10]) + 1
        end = _end_of_blocks(file, data)
        if end is not None and end - data > 2 and _is_block(file, end):
            return at
    return None


def _fits(head: bytes, screen: bytes) -> bool:
    if len(head) < _PICTURE_BYTES or len(screen) < 4:
        return False
    left, top, width, height = (int.from_bytes(head[n : n + 2], "little") for n in (1, 3, 5, 7))
    across, down = int.from_bytes(screen[:2], "little"), int.from_bytes(screen[2:], "little")
    return 0 < width <= across - left and 0 < height <= down - top


def _is_block(file: IO[bytes], at: int) -> bool:
    head = read_at(file, at, 2)
    if head[:1] == _EXTENSION:
        return len(head) == 2 and head[1] in _KNOWN_LABELS
    return head[:1] in {b"", _PICTURE, _END}


def _control_in(block: bytes) -> bytes | None:
    """Return what an extension says of the next picture: its transparent colour."""
    is_control = block.startswith(b"!\xf9\x04") and block[7:] == b"\0"
    return block[3:7] if is_control else None
