"""The perceptual hashes of a whole index, each compared with each.

Exact, and 50,000 pictures take 20 s of one core.  Asking Elasticsearch for the neighbours of each,
in every turn, takes 280 s with a graph over the hashes (0.8 ms a search, in batches), which
besides hides equal hashes from each other, and more without one (12 ms).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

# A tile of 64-bit numbers that stays in a core's cache: 1 MB.
_TILE_ROWS = 64
_TILE_COLUMNS = 2048


class HashPair(NamedTuple):
    """Two pictures whose hashes differ in `distance` bits once the first is turned."""

    one: str
    other: str
    distance: int
    turn: Turn


class HashTable:
    """Ids and 64-bit hashes, 24 bytes of numbers and an id a picture."""

    def __init__(self) -> None:
        self._ids: list[str] = []
        self._hashes: list[int] = []

    def add(self, image_id: str, perceptual_hash: int) -> None:
        self._ids.append(image_id)
        self._hashes.append(perceptual_hash)

    def __len__(self) -> int:
        return len(self._ids)

    def pairs(self, radius: int) -> Iterator[HashPair]:
        """Every pair within `radius` bits, upright or turned, each turn of a pair once.

        The time grows with the square of the number of pictures: 20 s of one core for 50,000.
        """
        hashes = np.array(self._hashes, np.uint64)
        for turn in ALL_TURNS:
            turned = turned_hashes(hashes, turn)
            for one, other, distance in _near(turned, hashes, radius):
                yield HashPair(self._ids[one], self._ids[other], distance, turn)


def _near(
    turned: npt.NDArray[np.uint64], hashes: npt.NDArray[np.uint64], radius: int
) -> Iterator[tuple[int, int, int]]:
    """Row, column (later than the row) and distance of what is within the radius.

    Earlier columns are left out: a turn and its inverse are both asked for, and the first
    picture turned is as far from the second as the first from the second turned back.
    """
    for top in range(0, len(hashes), _TILE_ROWS):
        rows = turned[top : top + _TILE_ROWS, None]
        for left in range(top, len(hashes), _TILE_COLUMNS):
            distances = np.bitwise_count(rows ^ hashes[None, left : left + _TILE_COLUMNS])
            for place in np.flatnonzero(distances <= radius):
                row, column = divmod(int(place), distances.shape[1])
                if left + column > top + row:
                    yield top + row, left + column, int(distances[row, column])


# Perceptual hashes of a picture turned or mirrored, worked out from its hash alone.
#
# A mirror changes the sign of every second frequency of the cosine transform, a transposition
# swaps rows and columns.  The median, with which the frequencies are compared, is near zero, so
# a changed sign is a changed bit: 3 or 4 of 64 bits come out wrong on average, 8 for one picture
# in twenty (241 photographs and drawings).

BITS = 64
_SIDE = 8


class Turn(NamedTuple):
    """What was done to a picture: transposed first, then mirrored left-right and top-bottom."""

    transposed: bool = False
    mirrored: bool = False
    flipped: bool = False

    @property
    def changes_hands(self) -> bool:
        """Whether it is a mirror image, which no rotation undoes."""
        return self.transposed ^ self.mirrored ^ self.flipped

    @property
    def name(self) -> str:
        return _NAMES[self]


_NAMES = {
    Turn(): "upright",
    Turn(mirrored=True): "mirrored",
    Turn(flipped=True): "flipped",
    Turn(mirrored=True, flipped=True): "turned by 180°",
    Turn(transposed=True): "transposed",
    Turn(transposed=True, mirrored=True): "turned by 90°",
    Turn(transposed=True, flipped=True): "turned by 270°",
    Turn(transposed=True, mirrored=True, flipped=True): "transversed",
}
UPRIGHT = Turn()
ALL_TURNS = tuple(_NAMES)


def turned_hash(perceptual_hash: int, turn: Turn) -> int:
    """The 64-bit hash that the turned picture would have, but for some 3 bits."""
    return int(turned_hashes(np.array([perceptual_hash], np.uint64), turn)[0])


def turned_hashes(hashes: npt.NDArray[np.uint64], turn: Turn) -> npt.NDArray[np.uint64]:
    """The same of many hashes, shape (n,)."""
    raw = hashes.astype(">u8").view(np.uint8).reshape(-1, BITS // 8)
    bits = np.unpackbits(raw, axis=1)
    turned = bits[:, _source(turn.transposed)] ^ _signs(turn.mirrored, turn.flipped)
    packed = np.ascontiguousarray(np.packbits(turned, axis=1))
    return packed.view(">u8").ravel().astype(np.uint64)


def hamming(one: int, other: int) -> int:
    """How many of the bits differ, 0 to 64; of unrelated pictures about 32."""
    return (one ^ other).bit_count()


@cache
def _source(transposed: bool) -> npt.NDArray[np.intp]:
    """Which bit of the hash stands where in the turned one."""
    places = np.arange(BITS, dtype=np.intp).reshape(_SIDE, _SIDE)
    return (places.T if transposed else places).ravel()


@cache
def _signs(mirrored: bool, flipped: bool) -> npt.NDArray[np.uint8]:
    """1 where the frequency (row, column) changes its sign."""
    rows, columns = np.indices((_SIDE, _SIDE))
    changed = (columns % 2 * mirrored + rows % 2 * flipped) % 2
    return changed.astype(np.uint8).ravel()
