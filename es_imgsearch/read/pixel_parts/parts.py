"""A file put together from pieces of another one, with nothing copied."""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import IO, Any, Protocol, TypeVar

# A damaged file is searched for what follows so often, and in so many bytes; otherwise one made
# for it could keep a reader busy until its time is over.
MOST_SEARCHES = 16
MOST_SEARCHED_BYTES = 64 * 2**20

# A piece: bytes, or start and length (bytes) of what stands in the original file.
Piece = bytes | tuple[int, int]


class Unit(Protocol):
    """A chunk or box of a file; `end` is the offset (bytes) where the next one begins."""

    @property
    def end(self) -> int: ...


U = TypeVar("U", bound=Unit)


@dataclass(frozen=True, slots=True)
class PixelParts:
    """The parts of a picture file that its pixels need.

    `info` holds metadata by the names that Pillow gives them in `Image.info`: `exif`,
    `icc_profile`, `xmp` (bytes), `photoshop` (bytes by number of the resource).
    """

    file: IO[bytes]
    info: dict[str, Any] = field(default_factory=dict)


def good_units(
    start: int,
    unit_at: Callable[[int], U | None],
    is_good: Callable[[U], bool],
    next_after: Callable[[int, U | None], int | None],
    *,
    most: int,
) -> Iterator[U]:
    """Yield the units of a file from an offset on, without damaged ones.

    `next_after` searches for a good unit after a damaged one, or where no unit stands; `most` is
    the number of steps.
    """
    at, searches = start, 0
    for _ in range(most):
        unit = unit_at(at)
        if unit is not None and is_good(unit):
            yield unit
            at = unit.end
            continue
        searches += 1
        next_ = next_after(at, unit) if searches <= MOST_SEARCHES else None
        if next_ is None:
            return
        at = next_


def joined(file: IO[bytes], pieces: Sequence[Piece]) -> IO[bytes]:
    """Return a file that consists of these pieces."""
    return _Bounded(_Joined(file, pieces))


class _Bounded(io.BufferedReader):
    """A file of which nobody reads more than there is.

    Decoders ask for as many bytes as a damaged length says; a BufferedReader would make room for
    them before it looks.
    """

    raw: _Joined

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(0, self.raw.size - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left))


class _Joined(io.RawIOBase):
    def __init__(self, file: IO[bytes], pieces: Sequence[Piece]) -> None:
        self._file = file
        end = size_of(file)
        # Of a piece that is cut off there is less than its length says.
        self._pieces: list[Piece] = [
            each if isinstance(each, bytes) else (each[0], max(0, min(each[1], end - each[0])))
            for each in pieces
        ]
        lengths = (len(each) if isinstance(each, bytes) else each[1] for each in self._pieces)
        self._ends = list(accumulate(lengths))
        self.size = self._ends[-1] if self._ends else 0
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        if at < 0:
            raise ValueError("there is nothing before the beginning of a file")
        self._at = at
        return at

    def readinto(self, buffer: Any) -> int:
        number = bisect_right(self._ends, self._at)
        if number == len(self._pieces):
            return 0
        piece = self._pieces[number]
        left = self._ends[number] - self._at
        length = min(left, len(buffer))
        if isinstance(piece, bytes):
            start = len(piece) - left
            data = piece[start : start + length]
        else:
            self._file.seek(piece[0] + piece[1] - left)
            data = self._file.read(length)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def read_at(file: IO[bytes], start: int, length: int) -> bytes:
    """Read bytes at an offset: fewer at the end, none before the beginning."""
    if start < 0 or length <= 0:
        return b""
    file.seek(start)
    return file.read(length)


def size_of(file: IO[bytes]) -> int:
    """Return the size of an open file in bytes."""
    return file.seek(0, io.SEEK_END)
